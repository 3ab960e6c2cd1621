"""`pmap` over the devices of one process.

N = devices
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmoe.parallel.axes import DATA, EXPERT, Axes
from jaxmoe.parallel.shards import Shards, is_split, layout
from jaxmoe.parallel.split import check_splits

Tree = Any


class PmapParallel:
    """The devices of one process under `pmap`, which has one axis: of data, or of experts.

    The leaves of a placed tree have a leading axis N: each device's part, or its copy.

    Attributes:
      count: devices.
      local_count: the same.
      expert: devices on the axis of experts: 1, or all of them.
    """

    def __init__(self, devices: Sequence[jax.Device], *, expert: int = 1, fsdp: bool = False):
        """Takes the devices.

        Raises:
          ValueError: several processes, experts on some of the devices, or both kinds of shards.
        """
        self.devices, self.count = list(devices), len(devices)
        self.local_count, self.expert, self._fsdp = self.count, expert, fsdp
        if jax.process_count() > 1:
            raise ValueError(
                "parallel.mapping: pmap takes the devices of one process, and there are "
                f"{jax.process_count()}; expected mesh"
            )
        if expert not in (1, self.count):
            raise ValueError(
                f"parallel.expert: {expert}; with parallel.mapping pmap expected 1 or all "
                f"{self.count} devices, and with mesh any divisor"
            )
        self._mesh = Mesh(np.array(self.devices), ("devices",))
        self._axes = Axes(expert=EXPERT) if expert > 1 else Axes(data=DATA)

    def layout(self, tree: Tree) -> Tree:
        """Returns the `PartitionSpec` of each leaf of params or of an optimiser's state."""
        return layout(tree, data=self.count // self.expert, expert=self.expert, fsdp=self._fsdp)

    def shards(self, params: Tree) -> Shards:
        """Returns what a per-device step needs to know of params of these shapes."""
        specs = self.layout(params)
        return Shards(self._axes, self.count, self.expert, specs if is_split(specs) else None)

    def place(self, tree: Tree) -> Tree:
        """Lays a tree of whole arrays out on the devices, each its part or its copy."""
        specs = self.layout(tree)

        def split(leaf, spec):
            axis = _axis(spec)
            if axis is None:
                return jnp.broadcast_to(leaf, (self.count, *jnp.shape(leaf)))
            parts = *leaf.shape[:axis], self.count, -1, *leaf.shape[axis + 1 :]
            return jnp.moveaxis(leaf.reshape(parts), axis, 0)

        stack = jax.jit(
            lambda tree: jax.tree.map(split, tree, specs), out_shardings=self._by_device()
        )
        return stack(jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec())))

    def make(self, function: Callable, params: Tree, like: Tree) -> Tree:
        """Returns `function(params)` placed."""
        del like
        return self.place(jax.jit(function)(params))

    def saved(self, like: Tree) -> Tree:
        """Returns shapes with the shardings that a checkpoint is restored to: one device's."""
        return like

    def adopt(self, restored: Tree) -> Tree:
        """Returns a tree that was restored so, placed."""
        return self.place(restored)

    def collect(self, placed: Tree, like: Tree) -> Tree:
        """Returns a placed tree as arrays of their whole shapes, which are those of `like`."""
        specs = self.layout(like)

        def join(leaf, spec, whole):
            axis = _axis(spec)
            return leaf[0] if axis is None else jnp.moveaxis(leaf, 0, axis).reshape(whole.shape)

        return jax.jit(lambda tree: jax.tree.map(join, tree, specs, like))(placed)

    def whole(self, placed: Tree, like: Tree) -> Tree:
        """Returns the tree on the first device."""
        return jax.device_put(self.collect(placed, like), self.devices[0])

    def everywhere(self, tree: Tree) -> Tree:
        """Returns keys and numbers as mapped functions take them: the same on every device."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def shard(self, batch: Tree) -> Tree:
        """Splits examples, on the leading axes, over the devices.

        Raises:
          ValueError: they do not split evenly.
        """

        def put(leaf):
            check_splits(len(leaf), self.count)
            leaf = np.asarray(leaf).reshape(self.count, -1, *np.shape(leaf)[1:])
            return jax.device_put(leaf, self._by_device())

        return jax.tree.map(put, batch)

    def map_step(self, step: Callable, like: Tree) -> Callable:
        """Compiles `(state, batch, given) -> (state, metrics)`; the old state's memory is taken."""
        del like
        return self._map(step, out_axes=(0, None), donate_argnums=0)

    def map_examples(self, function: Callable, like: Tree) -> Callable:
        """Compiles `(params, batch, given) -> results`, one for each example."""
        del like
        return self._map(function)

    def join(self, results: Tree) -> Tree:
        """Returns results of examples, `[N, B, …]`, as NumPy arrays `[N · B, …]`."""
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.device_get(results))

    def _map(self, function: Callable, **options: Any) -> Callable:
        return jax.pmap(
            function,
            axis_name=self._axes.names[0],
            devices=self.devices,
            in_axes=(0, 0, None),
            **options,
        )

    def _by_device(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec("devices"))


def _axis(spec: PartitionSpec) -> int | None:
    """The axis that is split; pmap's one axis splits no second."""
    return next((i for i, name in enumerate(spec) if name is not None), None)
