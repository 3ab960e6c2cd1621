"""Certified radii: no input nearer than that has another prediction.

They hold for what they say and nothing else: `mixture_radius` for the dense mixture of the
experts' *probabilities*, `dual_radius` for a dual model of probabilities, `top_1_radius` for hard
top-1 routing. All constants must be sound (`lipschitz_bounds`), in the norm of the radius. Where a
constant is not finite nothing is known, and the radius is 0; outputs that are not finite have no
radius: NaN.

Reference: ICML 2025, "Optimizing Robustness and Accuracy in Mixture of Experts: A Dual-Model
Approach" (https://arxiv.org/abs/2502.06832), theorems on the mixture and on the dual model.

Axes: B = batch, M = experts, K = classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Certificate(NamedTuple):
    """A prediction, and how far it holds."""

    prediction: Int[Array, " batch"]
    radius: Float[Array, " batch"]  # ≥ 0, or NaN; no input strictly nearer is predicted otherwise


def mixture_radius(
    router_logits: Float[Array, "batch experts"],
    expert_logits: Float[Array, "experts batch classes"],
    router_bounds: Float[Array, "experts experts"],
    expert_bounds: Float[Array, "experts classes classes"],
) -> Certificate:
    """Certifies the mixture of probabilities F = Σ_i a_i softmax(E_i).

    ε = min_j m_j / D_j with the margins m_j = F_c − F_j of the predicted class c and
    D_j = Σ_i (r_i + a_i(x) L_i^j): router weight i changes by at most r_i per unit of distance, and
    an expert's margin of probabilities, at most 1, by L_i^j.

    Args:
      router_logits: r(x).
      expert_logits: E_i(x).
      router_bounds: Lipschitz constants of r_i − r_j.
      expert_bounds: those of every expert's logit differences.
    """
    _, prediction, margins, slopes = _probability_margins(
        router_logits, expert_logits, router_bounds, expert_bounds
    )
    return Certificate(prediction, _least(_lasting(margins, slopes), prediction))


def dual_radius(
    alpha: Float[Array, ""] | float,
    standard: Float[Array, "batch classes"],
    router_logits: Float[Array, "batch experts"],
    expert_logits: Float[Array, "experts batch classes"],
    router_bounds: Float[Array, "experts experts"],
    expert_bounds: Float[Array, "experts classes classes"],
) -> Certificate:
    """Certifies the dual model of probabilities (1 − α) F_S + α F_R, however rough F_S is.

    ε = min_j (α m_j + α − 1) / (α D_j), with the m_j and D_j of `mixture_radius` for F_R. Where F_S
    may outvote F_R the radius is 0; so it is everywhere for α ≤ ½.

    Args:
      alpha: α.
      standard: F_S(x), probabilities.
      router_logits: of F_R, as the rest.
      expert_logits: as in `mixture_radius`.
      router_bounds: as there.
      expert_bounds: as there.
    """
    mixed, robust, margins, slopes = _probability_margins(
        router_logits, expert_logits, router_bounds, expert_bounds
    )
    left = jnp.maximum(alpha * margins + alpha - 1, 0.0)
    radii = jnp.where(left == 0, 0.0, _lasting(left, alpha * slopes))
    chances = (1 - alpha) * standard + alpha * mixed
    radius = jnp.where(jnp.isfinite(jnp.sum(chances, axis=-1)), _least(radii, robust), jnp.nan)
    return Certificate(jnp.argmax(chances, axis=-1), radius)


def top_1_radius(
    router_logits: Float[Array, "batch experts"],
    expert_logits: Float[Array, "experts batch classes"],
    router_bounds: Float[Array, "experts experts"],
    expert_bounds: Float[Array, "experts classes classes"],
) -> Certificate:
    """Certifies hard top-1 routing, on logits, whatever positive weight the chosen expert has.

    The smaller of two distances: to the next route, min_j (r_c − r_j) / L_cj, and to the next class
    of the chosen expert, min_j (z_c − z_j) / L_cj.
    """
    expert, route = logit_radius(router_logits, jnp.asarray(router_bounds))
    chosen = jnp.take_along_axis(expert_logits, expert[None, :, None], axis=0)[0]
    bounds = jnp.asarray(expert_bounds)[expert]
    prediction, class_radius = jax.vmap(_one_logit_radius)(chosen, bounds)
    return Certificate(prediction, jnp.minimum(route, class_radius))


def logit_radius(
    logits: Float[Array, "batch classes"], bounds: Float[Array, "classes classes"]
) -> Certificate:
    """Certifies the largest logit of one network: min_j (z_c − z_j) / L_cj."""
    prediction, radius = jax.vmap(_one_logit_radius, in_axes=(0, None))(logits, bounds)
    return Certificate(prediction, radius)


def certified_accuracy(
    certificate: Certificate, label: Int[np.ndarray, " batch"], radii: Float[np.ndarray, " radii"]
) -> Float[np.ndarray, " radii"]:
    """Share of the examples that are predicted as labelled in the whole ball of each radius."""
    right = np.asarray(certificate.prediction) == label
    radii = np.asarray(radii)[:, None]
    # At the radius itself two classes may tie; at 0 there is no other input.
    holds = (np.asarray(certificate.radius)[None] > radii) | (radii == 0)
    return np.mean(right[None] & holds, axis=1, dtype=np.float64)


def _probability_margins(router_logits, expert_logits, router_bounds, expert_bounds):
    """The mixture [B, K], its prediction [B], margins [B, K] and how fast these may fall [B, K]."""
    weights = jax.nn.softmax(router_logits, axis=-1)
    chances = jax.nn.softmax(expert_logits, axis=-1)
    mixed = jnp.einsum("bm,mbk->bk", weights, chances, precision="highest")
    prediction = jnp.argmax(mixed, axis=-1)
    margins = jnp.take_along_axis(mixed, prediction[:, None], axis=-1) - mixed
    # ∇a_i = a_i Σ_j a_j (∇r_i − ∇r_j), and a_i (1 − a_i) ≤ ¼.
    router_slope = jnp.sum(jnp.max(jnp.asarray(router_bounds), axis=1)) / 4
    # ∇(p_c − p_j) is a combination of logit gradients that sums to 0, its positive part ≤ ½.
    expert_slope = jnp.max(jnp.asarray(expert_bounds), axis=(1, 2)) / 2
    slopes = router_slope + jnp.einsum("bm,m->b", weights, expert_slope, precision="highest")
    return mixed, prediction, margins, jnp.broadcast_to(slopes[:, None], margins.shape)


def _one_logit_radius(logits, bounds):
    prediction = jnp.argmax(logits)
    radii = _lasting(logits[prediction] - logits, bounds[prediction])
    others = jnp.arange(len(logits)) != prediction
    radius = jnp.min(radii, initial=jnp.inf, where=others)
    return prediction, jnp.where(jnp.all(jnp.isfinite(logits)), radius, jnp.nan)


def _lasting(margins, slopes):
    """How far margins last that fall by at most `slopes` per unit of distance."""
    known = jnp.where(jnp.isfinite(slopes), margins / slopes, 0.0)
    # Two outputs that never part have no way to cross.
    radii = jnp.where(slopes == 0, jnp.inf, known)
    return jnp.where(jnp.isfinite(margins), radii, jnp.nan)


def _least(radii, prediction):
    others = jnp.arange(radii.shape[-1])[None] != prediction[:, None]
    return jnp.min(jnp.where(others, radii, jnp.inf), axis=-1)
