"""The axes of devices, by the names that a step reduces over."""

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

DATA = "data"  # examples are split over it, and params that are sharded at rest
EXPERT = "expert"  # examples are split over it too, and experts


_SMALL = 1 << 16  # numbers of a leaf: a message takes longer to begin than to send them


class Axes(NamedTuple):
    """Names of the axes that a per-device function may reduce over; None where there is none."""

    data: str | None = None
    expert: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All axes over which examples are split."""
        return tuple(name for name in self if name is not None)

    def mean(self, tree: Any) -> Any:
        """Returns the mean over all devices of every leaf."""
        return mean_over(self.names, tree) if self.names else tree

    def any(self, flags: jax.Array) -> jax.Array:
        """Returns where any device has True."""
        return jax.lax.pmax(flags.astype("int32"), self.names) > 0 if self.names else flags


def mean_over(names: tuple[str, ...], tree: Any) -> Any:
    """Returns the mean of every leaf over the devices of these axes.

    Small leaves travel as one: where processes are joined by a network each array is a message.
    """
    leaves, structure = jax.tree.flatten(tree)
    small = collections.defaultdict(list)  # by dtype
    for i, leaf in enumerate(leaves):
        if leaf.size <= _SMALL:
            small[leaf.dtype].append(i)
    joined = [jnp.concatenate([leaves[i].ravel() for i in own]) for own in small.values()]
    large = {i: leaf for i, leaf in enumerate(leaves) if leaf.size > _SMALL}
    joined, large = jax.lax.pmean((joined, large), names)
    for vector, own in zip(joined, small.values(), strict=True):
        ends = np.cumsum([leaves[i].size for i in own])
        for i, part in zip(own, jnp.split(vector, ends[:-1]), strict=True):
            leaves[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, [large.get(i, leaf) for i, leaf in enumerate(leaves)])
