"""From router logits to combine weights, and the losses that keep the load balanced.

Axes: B = batch, M = experts, k = chosen experts.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmoe.choices import BALANCES, Balance, Combine


class Routing(NamedTuple):
    """The experts that each clip goes to, and their weights."""

    experts: Int[Array, "batch k"]
    weights: Float[Array, "batch k"]


def choose(logits: Float[Array, "batch experts"], top_k: int, combine: Combine) -> Routing:
    """The `top_k` most trusted experts of every clip and their combine weights c_i.

    Args:
      logits: router logits r(x).
      top_k: experts a clip, 1 ≤ top_k ≤ M.
      combine: `"softmax"` takes a_i as it is, so the router has a gradient under top-1;
        `"renormalized"` divides by the sum over the chosen; `"none"` is 1 for each chosen expert,
        which leaves the router without a gradient.
    """
    chex.assert_rank(logits, 2)
    weights = jax.nn.softmax(logits, axis=-1)
    # Not of the weights: they tie where they underflow or round to the same float.
    _, experts = jax.lax.top_k(logits, top_k)
    top_weights = jnp.take_along_axis(weights, experts, axis=-1)
    if combine == "renormalized":
        top_weights = top_weights / jnp.sum(top_weights, axis=-1, keepdims=True)
    elif combine == "none":
        top_weights = jnp.ones_like(top_weights)
    return Routing(experts, top_weights)


def mean_over_classes(
    logits: Float[Array, "batch ... experts"],
) -> Float[Array, "batch experts"]:
    """Router logits of one weight for an expert: the mean of its weights over the classes.

    Those of a router that has one weight for each expert anyway are as they are.
    """
    if logits.ndim == 2:
        return logits
    weights = jax.nn.softmax(logits, axis=-1)
    mean = jnp.mean(weights, axis=tuple(range(1, weights.ndim - 1)))
    return jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))


def balance_loss(
    logits: Float[Array, "batch experts"],
    kind: Balance,
    axis_name: str | tuple[str, ...] | None = None,
    *,
    top_k: int = 1,
    weight: Float[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """How unevenly a batch is spread over the experts; least when the load is even.

    `"switch"` is M · Σ_i f_i P_i, f_i the share of clips whose first choice is i and P_i the mean
    router weight, 1 when even (Fedus et al. 2022, eq. 4, https://arxiv.org/abs/2101.03961). The
    others are squared coefficients of variation, 0 when even (Riquelme et al. 2021, appendix A,
    https://arxiv.org/abs/2106.05974): `"importance"` of the summed router weights, `"load"` of each
    expert's chance of being chosen if noise of standard deviation 1 / M is added to its own logit,
    summed over the clips, and `"v-moe"` the mean of the two. The paper's threshold has noise too;
    here it has none, so that the loss needs no draw.

    The gradient of `"load"` vanishes where no such noise could change a choice: it keeps an even
    router even, and cannot bring back one that has collapsed.

    Args:
      logits: router logits.
      kind: which.
      axis_name: of the devices over which the batch is spread, if it is.
      top_k: experts a clip, below M for `"load"` and `"v-moe"`.
      weight: how much each example counts, 1 in the mean; None is 1 for all.

    Raises:
      ValueError: an unknown kind, or a load of experts that are all chosen.
    """
    if kind not in BALANCES:
        raise ValueError(f"balance: {kind!r} is not one of {', '.join(BALANCES)}")
    if weight is not None:
        weight = jnp.repeat(weight, logits[0].size // logits.shape[-1])[:, None]
    logits = logits.reshape(-1, logits.shape[-1])  # a gate may weigh every class by itself
    importance = _weighted(jax.nn.softmax(logits, axis=-1), weight)
    if kind == "switch":
        load = jax.lax.stop_gradient(expert_load(logits, weight))
        importance, load = _mean((importance, load), axis_name)
        return logits.shape[-1] * jnp.sum(load * importance)
    varied = [] if kind == "load" else [importance]
    if kind != "importance":
        varied.append(_expected_load(logits, top_k, weight))
    variations = [jnp.var(v) / jnp.square(jnp.mean(v)) for v in _mean(varied, axis_name)]
    return sum(variations) / len(variations)


def _mean(values: Any, axis_name: str | tuple[str, ...] | None) -> Any:
    return jax.lax.pmean(values, axis_name) if axis_name else values


def _weighted(values: Float[Array, "batch experts"], weight: Array | None) -> Array:
    return jnp.mean(values if weight is None else values * weight, axis=0)


def _expected_load(
    logits: Float[Array, "batch experts"], top_k: int, weight: Array | None
) -> Float[Array, " experts"]:
    """Returns each expert's chance of being chosen with noise on its own logit, mean over clips.

    The threshold is the k-th largest of the other logits (Shazeer et al. 2017, eq. 9).
    """
    experts = logits.shape[-1]
    if top_k >= experts:
        raise ValueError(
            f"balance: all {experts} experts see every example; expected top_k below it"
        )
    logits = logits.astype(jnp.float32)
    largest = jax.lax.top_k(logits, top_k + 1)[0]
    kth, following = largest[:, -2:-1], largest[:, -1:]
    threshold = jnp.where(logits >= kth, following, kth)
    return _weighted(jax.scipy.special.ndtr((logits - threshold) * experts), weight)


def expert_load(
    logits: Float[Array, "batch experts"], weight: Float[Array, "batch 1"] | None = None
) -> Float[Array, " experts"]:
    """Share of the clips whose first choice each expert is; sums to 1."""
    chosen = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype)
    return _weighted(chosen, weight)
