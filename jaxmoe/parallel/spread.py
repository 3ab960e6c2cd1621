"""Runs a program of a batch on all devices of all processes, each on its share of the examples.

Nothing is reduced but what has no axis of examples, so a result does not depend on how many devices
there are. A batch that does not split evenly is filled up with its last example.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmoe.parallel import hosts
from jaxmoe.parallel.axes import DATA

Tree = Any


class Spread:
    """All devices, in one line.

    Attributes:
      count: how many they are.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        own = jax.devices() if devices is None else list(devices)
        self.count = len(own)
        self._mesh = Mesh(np.array(own), (DATA,), axis_types=(AxisType.Auto,))

    def put(self, tree: Tree) -> Tree:
        """Returns the tree with a copy of every array on every device."""
        if self.count == 1:
            return jax.device_put(tree)
        return jax.tree.map(lambda leaf: self._put(leaf, PartitionSpec()), tree)

    def compile(self, program: Callable, args: tuple, axes: tuple) -> Callable:
        """Returns the compiled program for arguments of these shapes.

        Args:
          program: a pure function; each example's results depend on that example alone.
          args: its arguments.
          axes: for each argument the axis of examples of its leaves, −1 where they have none, or a
            tree of such numbers. Results may have theirs anywhere: tracing with two sizes finds it.
        """
        batch = _batch(args, axes)
        share = -(-batch // self.count)
        small, large = (
            jax.eval_shape(program, *_resized(args, axes, size)) for size in (share, 2 * share)
        )
        places = jax.tree.map(_growing_axis, small, large)
        in_specs = tuple(jax.tree.map(_spec, axis) for axis in axes)
        out_specs = jax.tree.map(_spec, places)

        def mapped(*args):
            return jax.tree.map(self._same_everywhere, program(*args), places)

        spread = jax.shard_map(
            mapped, mesh=self._mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )
        compiled = jax.jit(spread).lower(*self._place(args, axes, batch)).compile()
        hosts.wait_for_all()

        def run(*args):
            found = compiled(*self._place(args, axes, batch))
            if jax.process_count() > 1:
                found = multihost_utils.process_allgather(found, tiled=True)
            if share * self.count == batch:
                return found
            return jax.tree.map(lambda leaf, place: _cut(leaf, place, batch), found, places)

        run.memory_analysis = compiled.memory_analysis  # of one device
        return run

    def _place(self, args: tuple, axes: tuple, batch: int) -> tuple:
        """The arguments on the devices, filled up."""
        whole = -(-batch // self.count) * self.count
        chosen = np.minimum(np.arange(whole), batch - 1)

        def put(leaf, axis):
            if axis >= 0 and whole > batch:
                take = np.take if isinstance(leaf, np.ndarray) else jnp.take
                leaf = take(leaf, chosen, axis=axis)
            return self._put(leaf, _spec(axis))

        return _map(put, args, axes)

    def _put(self, leaf: Any, spec: PartitionSpec) -> jax.Array:
        sharding = NamedSharding(self._mesh, spec)
        if jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        here = np.asarray(leaf)
        return jax.make_array_from_callback(here.shape, sharding, lambda place: here[place])

    @staticmethod
    def _same_everywhere(leaf: jax.Array, axis: int) -> jax.Array:
        """One value of those that devices have of what counts for a whole batch."""
        if axis >= 0:
            return leaf
        floats = jnp.issubdtype(leaf.dtype, jnp.floating)
        return (jax.lax.pmean if floats else jax.lax.pmax)(leaf, DATA)


# An axis of −1 is none: None would be a tree without a leaf.
_NONE = -1


def _map(function: Callable, args: tuple, axes: tuple) -> tuple:
    """Each leaf of the arguments with its axis; one number stands for all leaves of an argument."""

    def mapped(arg, axis):
        if isinstance(axis, int):
            return jax.tree.map(lambda leaf: function(leaf, axis), arg)
        return jax.tree.map(function, arg, axis)

    return tuple(mapped(arg, axis) for arg, axis in zip(args, axes, strict=True))


def _spec(axis: int) -> PartitionSpec:
    return PartitionSpec() if axis < 0 else PartitionSpec(*[None] * axis, DATA)


def _batch(args: tuple, axes: tuple) -> int:
    """How many examples the arguments have."""
    sizes: set[int] = set()

    def note(leaf, axis):
        if axis >= 0:
            sizes.add(leaf.shape[axis])
        return leaf

    _map(note, args, axes)
    (size,) = sizes
    return size


def _resized(args: tuple, axes: tuple, size: int) -> tuple:
    """The arguments' shapes with so many examples."""

    def resize(leaf, axis):
        shape = list(leaf.shape)
        if axis >= 0:
            shape[axis] = size
        return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)

    return _map(resize, args, axes)


def _growing_axis(small: jax.ShapeDtypeStruct, large: jax.ShapeDtypeStruct) -> int:
    """The axis that is as long as there are examples; −1 where there is none."""
    grown = [i for i, (a, b) in enumerate(zip(small.shape, large.shape, strict=True)) if a != b]
    return grown[0] if grown else _NONE


def _cut(leaf: Any, axis: int, batch: int) -> Any:
    return leaf if axis < 0 else leaf[(slice(None),) * axis + (slice(batch),)]
