"""Randomised smoothing: a certificate in ℓ2 that holds for any classifier, deep ones too.

The smoothed classifier predicts what the base classifier says most often under Gaussian noise.
Cohen et al. 2019, algorithm 1 (https://arxiv.org/abs/1902.02918).

Axes: B = batch, N = noise samples, K = classes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxmoe.attacks.attack import Model, scored_apply
from jaxmoe.settings import Smoothing
from jaxmoe.threat import per_example_keys

ABSTAINED = -1


def check_smoothing(smoothing: Smoothing) -> Smoothing:
    """The same, if every value is possible.

    Raises:
      ValueError: one line with the field, its value and what would be accepted.
    """
    for name in ("selection", "samples", "chunk"):
        if getattr(smoothing, name) < 1:
            raise ValueError(f"smoothing.{name}: {getattr(smoothing, name)} is not at least 1")
    if not 0 < smoothing.sigma < float("inf"):
        raise ValueError(f"smoothing.sigma: {smoothing.sigma} is not a finite number above 0")
    if not 0 < smoothing.failure < 1:
        raise ValueError(f"smoothing.failure: {smoothing.failure} is not between 0 and 1")
    return smoothing


Votes = Callable[
    [Key[Array, "*batch"], Any, Float[Array, "batch ..."]], Int[Array, "batch classes"]
]


def count_votes(model: Model, smoothing: Smoothing, samples: int) -> Votes:
    """`(key, params, x) -> [B, K]`: how many of `samples` noisy copies are given each class.

    The model sees `chunk` noisy copies of the whole batch at a time. Noise is drawn from each
    example's own key, so it does not depend on the batch; it is not clipped to the box.
    """
    apply = scored_apply(model)
    chunk = min(smoothing.chunk, samples)

    def votes(key, params, x):
        keys = per_example_keys(key, x.shape[0])

        def one_chunk(total, number):
            def noise(example_key):
                chunk_key = jax.random.fold_in(example_key, number)
                return jax.random.normal(chunk_key, (chunk, *x.shape[1:]), x.dtype)

            noisy = x[:, None] + smoothing.sigma * jax.vmap(noise)(keys)
            logits = apply(params, noisy.reshape(-1, *x.shape[1:]))
            chosen = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=jnp.int32)
            # NaN is no vote: argmax would give it to class 0 or wherever the first NaN is.
            chosen = chosen * jnp.all(jnp.isfinite(logits), axis=-1).astype(jnp.int32)[:, None]
            chosen = chosen.reshape(x.shape[0], chunk, -1)
            counted = number * chunk + jnp.arange(chunk) < samples
            return total + jnp.sum(chosen * counted.astype(jnp.int32)[None, :, None], axis=1), None

        classes = jax.eval_shape(apply, params, x).shape[-1]
        nothing = jnp.zeros((x.shape[0], classes), jnp.int32)
        chunks = jnp.arange(-(-samples // chunk))
        return jax.lax.scan(one_chunk, nothing, chunks)[0]

    return votes


def smoothed_radius(
    selection: Int[np.ndarray, "batch classes"],
    votes: Int[np.ndarray, "batch classes"],
    smoothing: Smoothing,
) -> tuple[Int[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """Predictions and certified ℓ2 radii σ Φ⁻¹(p), p the Clopper–Pearson bound of the votes.

    Args:
      selection: votes that choose each example's class.
      votes: of other samples, `smoothing.samples` in all, that bound its probability.
      smoothing: how they were drawn.

    Returns:
      Classes, `ABSTAINED` where p ≤ ½, and radii, 0 there. Each is wrong with probability at most
      `smoothing.failure` over the noise.
    """
    from scipy import special

    chosen = np.argmax(selection, axis=-1)
    hits = np.take_along_axis(np.asarray(votes), chosen[:, None], axis=-1)[:, 0]
    lower = lower_confidence_bound(hits, smoothing.samples, smoothing.failure)
    certain = lower > 0.5
    radius = np.where(certain, smoothing.sigma * special.ndtri(np.where(certain, lower, 0.5)), 0.0)
    return np.where(certain, chosen, ABSTAINED), radius


def largest_radius(smoothing: Smoothing) -> float:
    """The radius of an example whose samples all agree; 0 where they are too few."""
    every = np.array([[smoothing.samples, 0]])
    return float(smoothed_radius(every, every, smoothing)[1][0])


def lower_confidence_bound(
    hits: Int[np.ndarray, "..."], samples: int, failure: float
) -> Float[np.ndarray, "..."]:
    """Clopper & Pearson 1934, one-sided: below the probability of a hit but for `failure`."""
    from scipy import special

    hits = np.asarray(hits)
    bound = special.betaincinv(np.maximum(hits, 1), samples - hits + 1, failure)
    return np.where(hits > 0, bound, 0.0)
