"""`shard_map` over a mesh of the devices of all processes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmoe.parallel import hosts
from jaxmoe.parallel.axes import DATA, EXPERT, Axes
from jaxmoe.parallel.shards import Shards, is_split, layout
from jaxmoe.parallel.split import check_splits

Tree = Any
_EXAMPLES = PartitionSpec((DATA, EXPERT))
_WHOLE = PartitionSpec()


class MeshParallel:
    """A mesh with the axes `DATA` and `EXPERT`; examples are split over both.

    A placed tree is one of global arrays, each with its sharding.

    Attributes:
      mesh: the devices of all processes.
      count: how many they are.
      local_count: how many of them are of this process.
      expert: devices on the axis of experts.
    """

    def __init__(self, devices: Sequence[jax.Device], *, expert: int = 1, fsdp: bool = False):
        # Devices of one process are neighbours in the list: a row of experts stays inside of one.
        grid = np.array(devices).reshape(-1, expert)
        self.mesh = Mesh(grid, (DATA, EXPERT), axis_types=(AxisType.Auto,) * 2)
        self.count, self.expert, self._fsdp = grid.size, expert, fsdp
        own = jax.process_index(grid.flat[0].client)
        self.local_count = sum(device.process_index == own for device in grid.flat)

    def layout(self, tree: Tree) -> Tree:
        """Returns the `PartitionSpec` of each leaf of params or of an optimiser's state."""
        return layout(tree, data=self.count // self.expert, expert=self.expert, fsdp=self._fsdp)

    def shardings(self, tree: Tree) -> Tree:
        """Returns the `NamedSharding` of each leaf of params or of an optimiser's state."""
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), self.layout(tree))

    def shards(self, params: Tree) -> Shards:
        """Returns what a per-device step needs to know of params of these shapes."""
        specs = self.layout(params)
        axes = Axes(DATA, EXPERT)
        return Shards(axes, self.count, self.expert, specs if is_split(specs) else None)

    def place(self, tree: Tree) -> Tree:
        """Lays a tree of whole arrays out on the devices."""

        def put(leaf, sharding):
            if self.local_count == self.count:
                # A step takes the memory of its state, and the caller's array is not ours to give.
                return jax.device_put(leaf, sharding, may_alias=False)
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, sharding, lambda place: whole[place])

        return jax.tree.map(put, tree, self.shardings(tree))

    def make(self, function: Callable, params: Tree, like: Tree) -> Tree:
        """Returns `function(params)` placed, made where it will lie."""
        return jax.jit(function, out_shardings=self.shardings(like))(self.place(params))

    def saved(self, like: Tree) -> Tree:
        """Returns shapes with the shardings that a checkpoint is restored to."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            like,
            self.shardings(like),
        )

    def adopt(self, restored: Tree) -> Tree:
        """Returns a tree that was restored so: it is placed."""
        return restored

    def collect(self, placed: Tree, like: Tree) -> Tree:
        """Returns the tree as it is: its arrays have their whole shapes."""
        del like
        return placed

    def whole(self, placed: Tree, like: Tree) -> Tree:
        """Returns the tree on this process's first device."""
        everywhere = NamedSharding(self.mesh, _WHOLE)
        gathered = jax.jit(lambda tree: tree, out_shardings=everywhere)(placed)
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), gathered)

    def everywhere(self, tree: Tree) -> Tree:
        """Returns keys and numbers as mapped functions take them: the same on every device."""
        sharding = NamedSharding(self.mesh, _WHOLE)
        if self.local_count == self.count:
            return jax.device_put(tree, sharding)

        def put(leaf):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                placed = put(jax.random.key_data(leaf))
                return jax.random.wrap_key_data(placed, impl=jax.random.key_impl(leaf))
            data = np.asarray(leaf)
            return jax.make_array_from_callback(data.shape, sharding, lambda place: data[place])

        return jax.tree.map(put, tree)

    def shard(self, batch: Tree) -> Tree:
        """Splits this process's examples, on the leading axes, over its devices.

        Raises:
          ValueError: they do not split evenly.
        """
        sharding = NamedSharding(self.mesh, _EXAMPLES)

        def put(leaf):
            check_splits(len(leaf), self.local_count)
            if self.local_count == self.count:
                return jax.device_put(leaf, sharding)
            return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

        return jax.tree.map(put, batch)

    def map_step(self, step: Callable, like: Tree) -> Callable:
        """Compiles `(state, batch, given) -> (state, metrics)`; the old state's memory is taken."""
        specs = self.layout(like)
        mapped = self._map(step, specs, (specs, _WHOLE))
        return hosts.compile_together(jax.jit(mapped, donate_argnums=0))

    def map_examples(self, function: Callable, like: Tree) -> Callable:
        """Compiles `(params, batch, given) -> results`, one for each example."""
        return hosts.compile_together(jax.jit(self._map(function, self.layout(like), _EXAMPLES)))

    def join(self, results: Tree) -> Tree:
        """Returns results of examples, of all devices and processes, as NumPy arrays."""
        if self.local_count == self.count:
            return jax.device_get(results)
        return multihost_utils.process_allgather(results, tiled=True)

    def _map(self, function: Callable, state: Tree, out: Tree) -> Callable:
        # What the compiler would check of axes it would also reduce, a second time.
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=(state, _EXAMPLES, _WHOLE),
            out_specs=out,
            check_vma=False,
        )
