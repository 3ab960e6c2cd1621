"""Assigns the examples of a batch to experts under a limit on each expert's load.

Axes: B = batch, M = experts.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def assign_evenly(scores: Float[Array, "batch experts"]) -> Int[Array, " batch"]:
    """An expert for each example, none with more than ⌈B / M⌉: [B], not differentiable.

    Examples choose in the order of what their second choice would cost them; each takes the best
    expert that has room. With B a multiple of M all loads are equal. A score that is not finite is
    the worst.
    """
    batch, experts = scores.shape
    limit = -(-batch // experts)
    scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
    best = jax.lax.top_k(scores, min(2, experts))[0]
    cost = jnp.where(jnp.isneginf(best[:, -1]), jnp.inf, best[:, 0] - best[:, -1])
    order = jnp.argsort(-cost)

    def take(load, row):
        full = load >= limit
        # A full expert is worse than the worst score.
        rank = jnp.where(full, -1, jnp.argsort(jnp.argsort(row)))
        expert = jnp.argmax(rank)
        return load.at[expert].add(1), expert

    _, chosen = jax.lax.scan(take, jnp.zeros(experts, jnp.int32), scores[order])
    return jnp.zeros(batch, chosen.dtype).at[order].set(chosen)
