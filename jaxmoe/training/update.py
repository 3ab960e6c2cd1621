"""How updates are applied: what is frozen stays, and so do experts that no example reached."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxmoe.parallel import Shards
from jaxmoe.training.phase import Params

FROZEN_COLLECTION = "batch_stats"  # running statistics of imported weights: no gradient moves them


def is_frozen(path: tuple) -> bool:
    """Whether a leaf's path is in the collection that nothing moves."""
    return any(getattr(entry, "key", None) == FROZEN_COLLECTION for entry in path)


def without_frozen(gradient: Params) -> Params:
    """Zeros for the frozen collection, so that it takes no share of the clipped norm."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if is_frozen(path) else leaf, gradient
    )


def apply_updates(params: Params, updates: Any, rate: Array) -> Params:
    """`params − rate · updates`, the frozen collection left as it is."""

    def move(path, param, update):
        return param if is_frozen(path) else param - rate.astype(param.dtype) * update

    return jax.tree_util.tree_map_with_path(move, params, updates)


def keep_idle(part: str, gradient: Params, new: Any, old: Any, shards: Shards) -> Any:
    """Returns `new`, but `old` of every expert that no example of the batch reached.

    Such an expert has no gradient. Momentum and weight decay would move it all the same, further
    the longer it waits. The part `"standard"` of a dual model has experts of its own.
    """

    def is_of_experts(path, leaf) -> bool:
        inside = part == "standard" and any(getattr(e, "key", None) == "experts" for e in path)
        return (part == "experts" or inside) and leaf.ndim > 0  # a count of steps has no axis

    leaves = [
        jnp.any(leaf != 0, axis=tuple(range(1, leaf.ndim)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if is_of_experts(path, leaf)
    ]
    if not leaves:
        return new
    moved = shards.any(jnp.any(jnp.stack(leaves), axis=0))

    def pick(path, after, before):
        if not is_of_experts(path, after):
            return after
        return jnp.where(moved.reshape(-1, *[1] * (after.ndim - 1)), after, before)

    return jax.tree_util.tree_map_with_path(pick, new, old)
