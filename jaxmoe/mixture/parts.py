"""Scores of a mixture's parts by themselves: of each expert, and of routes that see no clip.

Axes: B = batch, M = experts, k = chosen experts, S = sets of k experts, K = classes.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoe.mixture.mixture import Clips, Mixture, Params, combine_experts
from jaxmoe.mixture.routing import mean_over_classes

MOST_ROUTES = 16  # sets of k experts that stand for all of them
NOTHING = 0.02  # below this gain on a random route, however sure it is, experts count as copies
COLLAPSED = 0.95  # from this share of the clips at one expert on, a mixture counts as collapsed

Judge = Callable[[Array, Array], Float[Array, " batch"]]
"""`(logits [B, …, K], labels [B, …]) -> [B]`, 1 for right and 0 for wrong."""


class PartScores(NamedTuple):
    """Scores of a mixture's parts on clean clips. The last axis is that of clips."""

    experts: Float[Array, "experts batch"]  # right, each expert alone on every clip
    routes: Float[Array, "routes batch"]  # right, by each of `fixed_routes`
    trust: Int[Array, "experts batch"]  # experts from the most to the least trusted
    agreement: Float[Array, " batch"]  # share of the pairs of experts that predict the same


def fixed_routes(num_experts: int, top_k: int) -> Float[np.ndarray, "routes experts"]:
    """Returns router logits of routes that see no clip, [S, M]: their mean is a random route.

    There is one for each set of k experts, or for `MOST_ROUTES` drawn ones. A dense mixture, which
    chooses every expert anyway, has one with equal weights.
    """
    if top_k == num_experts:
        return np.zeros((1, num_experts), np.float32)
    sets = np.array(list(itertools.combinations(range(num_experts), top_k)))
    if len(sets) > MOST_ROUTES:
        sets = np.random.default_rng(0).choice(sets, MOST_ROUTES, replace=False)
    closed = np.full((len(sets), num_experts), -np.inf, np.float32)
    np.put_along_axis(closed, sets, 0.0, axis=1)
    return closed


def score_parts(
    mixture: Mixture,
    judge: Judge,
    params: Params,
    x: Clips,
    y: Int[Array, "batch ..."],
    router: Float[Array, "batch ... experts"],
    experts: Float[Array, "experts batch ..."],
) -> PartScores:
    """Scores the parts of a mixture of at least two experts, from what they said of x.

    Among the experts of a route the router's own weights decide how they are combined.

    Args:
      mixture: the mixture.
      judge: what is right.
      params: of the mixture; its head may need them.
      x: clean clips.
      y: their labels; void ones below 0.
      router: `mixture.route` of x.
      experts: `mixture.experts` of x.
    """
    logits = mean_over_classes(router)

    def judge_route(closed):
        routed = logits + closed[None]
        if mixture.top_k == mixture.num_experts:
            routed = jnp.broadcast_to(closed[None], logits.shape)
        return judge(combine_experts(mixture, params, x, routed, experts), y)

    def agree(i, j):
        predicted = jnp.argmax(experts[j], axis=-1)
        return judge(experts[i], jnp.where(y < 0, -1, predicted) if y.ndim > 1 else predicted)

    pairs = itertools.combinations(range(mixture.num_experts), 2)
    return PartScores(
        jnp.stack([judge(expert, y) for expert in experts]),
        jnp.stack([judge_route(c) for c in fixed_routes(mixture.num_experts, mixture.top_k)]),
        jnp.argsort(-logits, axis=-1).T,
        jnp.mean(jnp.stack([agree(i, j) for i, j in pairs]), axis=0),
    )
