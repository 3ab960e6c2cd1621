"""`Parallel`: devices, and how a per-device function is mapped over them."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from jaxmoe.choices import DeviceMapping
from jaxmoe.parallel.mesh import MeshParallel
from jaxmoe.parallel.pmap import PmapParallel
from jaxmoe.parallel.shards import Shards

Tree = Any
Mapped = Callable[[Tree, Tree, Tree], Any]


class Parallel(Protocol):
    """Devices, and how a per-device function is mapped over them.

    A *placed* tree lies on the devices in the form that mapped functions take.

    Attributes:
      count: devices of all processes; examples split over all of them.
      local_count: devices of this process.
      expert: devices over which experts are split.
    """

    count: int
    local_count: int
    expert: int

    def shards(self, params: Tree) -> Shards:
        """Returns what a per-device step needs to know of params of these shapes."""
        ...

    def place(self, tree: Tree) -> Tree:
        """Lays a tree of whole arrays out on the devices."""
        ...

    def make(self, function: Callable, params: Tree, like: Tree) -> Tree:
        """Returns `function(params)` placed, made where it will lie.

        Args:
          function: of whole params, such as one that adds the state of an optimiser.
          params: whole arrays, which stay as they are.
          like: the shapes of its result.
        """
        ...

    def saved(self, like: Tree) -> Tree:
        """Returns shapes with the shardings that a checkpoint is restored to."""
        ...

    def adopt(self, restored: Tree) -> Tree:
        """Returns a tree that was restored so, placed."""
        ...

    def collect(self, placed: Tree, like: Tree) -> Tree:
        """Returns a placed tree as arrays of the shapes of `like`, perhaps split over devices."""
        ...

    def whole(self, placed: Tree, like: Tree) -> Tree:
        """Returns a placed tree, whole, on this process's first device."""
        ...

    def everywhere(self, tree: Tree) -> Tree:
        """Returns keys and numbers as mapped functions take them: the same on every device."""
        ...

    def shard(self, batch: Tree) -> Tree:
        """Splits this process's examples, on the leading axes, over its devices.

        Raises:
          ValueError: they do not split evenly.
        """
        ...

    def map_step(self, step: Callable, like: Tree) -> Mapped:
        """Compiles `(state, batch, given) -> (state, metrics)` for states of the shapes of `like`.

        `given` is what `everywhere` placed. The state that goes in gives its memory to the one that
        comes out. Metrics are the same on every device.
        """
        ...

    def map_examples(self, function: Callable, like: Tree) -> Mapped:
        """Compiles `(params, batch, given) -> results`, each leaf with a leading axis of examples.

        Args:
          function: of one device's share of the examples.
          like: params of the shapes that it is called with.
        """
        ...

    def join(self, results: Tree) -> Tree:
        """Returns results of examples, of all devices and processes, as NumPy arrays."""
        ...


def make_parallel(
    devices: Sequence[jax.Device] | None = None,
    *,
    mapping: DeviceMapping = "mesh",
    expert: int = 1,
    fsdp: bool = False,
) -> Parallel:
    """Returns the devices with one mapping over them.

    Args:
      devices: which; None takes all of every process.
      mapping: `"mesh"` is `shard_map` over a mesh, `"pmap"` is `pmap` over one process.
      expert: devices over which experts are split; a divisor of their number and of the devices'.
      fsdp: keep params and optimiser states in shards, one for each device on the data axis, and
        gather them once for each phase.

    Raises:
      ValueError: devices that do not split so, or a mapping that cannot do it.
    """
    own = list(jax.devices() if devices is None else devices)
    if expert < 1 or len(own) % expert:
        raise ValueError(
            f"parallel.expert: {expert} does not divide the {len(own)} devices; expected one of "
            f"{', '.join(str(n) for n in range(1, len(own) + 1) if len(own) % n == 0)}"
        )
    kind = PmapParallel if mapping == "pmap" else MeshParallel
    return kind(own, expert=expert, fsdp=fsdp)
