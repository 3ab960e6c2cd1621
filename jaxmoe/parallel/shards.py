"""What of a model's state lies on which device, and how a step gathers and reduces it.

A leaf below a key `"experts"` has a leading axis of experts, which may be split over the axis
`EXPERT`. Any leaf may be split over `DATA` (fully sharded data parallelism): along its largest axis
that divides.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxmoe.parallel.axes import DATA, EXPERT, Axes, mean_over

Tree = Any


def layout(tree: Tree, *, data: int, expert: int, fsdp: bool) -> Tree:
    """Returns a `PartitionSpec` for each leaf of params, or of an optimiser's state of them.

    Args:
      tree: arrays or `ShapeDtypeStruct`s of whole leaves.
      data: devices on the axis `DATA`.
      expert: devices on the axis `EXPERT`, a divisor of the number of experts.
      fsdp: split every leaf that can be split over `DATA`.
    """

    def spec(path, leaf):
        names = [None] * len(leaf.shape)
        if expert > 1 and names and of_experts(path):
            names[0] = EXPERT
        if fsdp and data > 1:
            # The axis of experts stays whole: which of them a batch reached is asked of each.
            free = range(of_experts(path), len(names))
            fitting = [i for i in free if leaf.shape[i] and leaf.shape[i] % data == 0]
            # The last of several that are as long: channels, which every kernel has many of.
            if fitting:
                names[max(fitting, key=lambda i: (leaf.shape[i], i))] = DATA
        return PartitionSpec(*names)

    return jax.tree_util.tree_map_with_path(spec, tree)


def of_experts(path: Sequence[Any]) -> bool:
    """Returns whether a leaf's path lies below a part of stacked experts."""
    return any(getattr(entry, "key", None) == "experts" for entry in path)


class Shards(NamedTuple):
    """How one device's part of the params becomes whole, and how gradients are reduced to it.

    Attributes:
      axes: names of the axes of devices.
      devices: how many there are.
      specs: of each leaf of the params; None where every device holds all of them.
      experts: devices on the axis of experts.
    """

    axes: Axes = Axes()
    devices: int = 1
    experts: int = 1
    specs: dict[str, Tree] | None = None

    def gather(self, params: dict[str, Tree]) -> dict[str, Tree]:
        """Returns the parts with every axis whole, but the experts' own.

        Args:
          params: some of the parts, by name.
        """
        if self.specs is None:
            return params

        def whole(leaf, spec):
            if DATA not in spec:
                return leaf
            return jax.lax.all_gather(
                leaf, self.axes.data, axis=tuple(spec).index(DATA), tiled=True
            )

        return jax.tree.map(whole, params, self._specs_of(params))

    def reduce(self, gradient: dict[str, Tree]) -> dict[str, Tree]:
        """Returns the mean gradient over all examples, each device's part of it.

        Args:
          gradient: of this device's mean loss, in params as `gather` gives them.
        """
        if self.specs is None:
            return self.axes.mean(gradient)
        leaves, structure = jax.tree.flatten(gradient)
        specs = jax.tree.leaves(self._specs_of(gradient), is_leaf=_is_spec)
        # An expert's gradient has come from all devices of its row with the examples: a sum.
        leaves = [
            leaf / self.experts if EXPERT in spec else leaf
            for leaf, spec in zip(leaves, specs, strict=True)
        ]
        for own, over in self._groups(specs):
            if over:
                reduced = mean_over(over, [leaves[i] for i in own])
                for i, leaf in zip(own, reduced, strict=True):
                    leaves[i] = leaf
        data = self.devices // self.experts
        for i, spec in enumerate(specs):
            if DATA in spec:
                place = tuple(spec).index(DATA)
                leaves[i] = (
                    jax.lax.psum_scatter(
                        leaves[i], self.axes.data, scatter_dimension=place, tiled=True
                    )
                    / data
                )
        return jax.tree.unflatten(structure, leaves)

    def norm(self, gradient: dict[str, Tree]) -> jax.Array:
        """Returns the global norm of a gradient of which each device holds its part."""
        leaves = jax.tree.leaves(gradient)
        specs = [PartitionSpec()] * len(leaves)
        if self.specs is not None:
            specs = jax.tree.leaves(self._specs_of(gradient), is_leaf=_is_spec)
        squares = [jnp.sum(jnp.square(leaf)) for leaf in leaves]
        if not any(DATA in spec or EXPERT in spec for spec in specs):
            return jnp.sqrt(sum(squares))
        # Every device counts a leaf as often as others hold the same of it: one sum over all.
        shares = [square * self._parts(spec) for square, spec in zip(squares, specs, strict=True)]
        return jnp.sqrt(jax.lax.pmean(sum(shares), self.axes.names))

    def norms(self, gradient: dict[str, Tree]) -> dict[str, Tree]:
        """Returns for each leaf the norm of its unit: of its expert, or of all else in its part.

        That of stacked experts is `[M, 1, …]`, for the experts that this device holds, so that it
        divides the leaf.
        """
        return {part: self._norms_of(part, tree) for part, tree in gradient.items()}

    def _norms_of(self, part: str, tree: Tree) -> Tree:
        found, structure = jax.tree_util.tree_flatten_with_path({part: tree})
        specs = [PartitionSpec()] * len(found)
        if self.specs is not None:
            specs = jax.tree.leaves({part: self.specs[part]}, is_leaf=_is_spec)
        totals = {}  # squares by (of experts, split over `DATA`)
        for (path, leaf), spec in zip(found, specs, strict=True):
            stacked = of_experts(path) and leaf.ndim > 0
            square = jnp.sum(jnp.square(leaf), axis=tuple(range(stacked, leaf.ndim)))
            unit = stacked, DATA in spec
            totals[unit] = totals.get(unit, 0) + square
        norms = {}
        for stacked in (False, True):
            split, whole = totals.get((stacked, True)), totals.get((stacked, False), 0)
            split = 0 if split is None else jax.lax.psum(split, self.axes.data)
            norms[stacked] = jnp.sqrt(whole + split)

        def norm(path, leaf):
            stacked = of_experts(path) and leaf.ndim > 0
            return norms[stacked].reshape(-1, *[1] * (leaf.ndim - 1)) if stacked else norms[False]

        leaves = [norm(path, leaf) for path, leaf in found]
        return jax.tree.unflatten(structure, leaves)[part]

    def any(self, flags: jax.Array) -> jax.Array:
        """Returns, for the experts that a device holds, where any device of them has True."""
        return Axes(self.axes.data).any(flags) if self.specs is not None else flags

    def _specs_of(self, tree: dict[str, Tree]) -> dict[str, Tree]:
        return {part: self.specs[part] for part in tree}

    def _parts(self, spec: PartitionSpec) -> int:
        """Into how many parts a leaf is split."""
        sizes = {DATA: self.devices // self.experts, EXPERT: self.experts}
        return math.prod(sizes.get(name, 1) for name in spec)

    def _groups(self, specs: list[PartitionSpec]) -> list[tuple[list[int], tuple[str, ...]]]:
        """Leaves by the axes over which a mean is due: each group is one collective."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, spec in enumerate(specs):
            over = tuple(name for name in self.axes.names if name not in spec)
            groups.setdefault(over, []).append(i)
        return [(own, over) for over, own in groups.items()]


def is_split(specs: Tree) -> bool:
    """Returns whether any leaf is split over devices."""
    leaves = jax.tree.leaves(specs, is_leaf=_is_spec)
    return any(name is not None for spec in leaves for name in spec)


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, PartitionSpec)
