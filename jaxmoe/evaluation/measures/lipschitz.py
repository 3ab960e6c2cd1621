"""Lipschitz figures: how much each part of a mixture answers to the change of its input.

A figure is `L_Lip(g) = MSE(g(x'), g(x)) / max(MSE(x', x), u², 1e-12)`, MSE over all axes but the
batch, **without a square root**, per clip; u is what g rounds pixels to (`lipschitz_quotient`). It
is sampled at the adversarial clip: a diagnostic, no bound.
Source: TLGA, ICLR 2026 (https://arxiv.org/abs/2602.01369), temporal Lipschitz loss.

Axes: B = batch, M = experts, K = classes.
"""

import functools
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from jaxmoe.attacks import lipschitz_quotient, router_output


class Lipschitz(NamedTuple):
    """L_Lip of the mixture and its parts, per clip. None where the model has no such part."""

    model: Float[Array, " batch"]  # of the logits F
    router_weights: Float[Array, " batch"] | None  # of softmax(r)
    router_logits: Float[Array, " batch"] | None  # of r
    experts: Float[Array, "batch experts"] | None  # of each expert's logits E_i


def model_lipschitz(
    logits_adv: Float[Array, "batch ..."],
    logits: Float[Array, "batch ..."],
    x_adv: Float[Array, "batch ..."],
    x: Float[Array, "batch ..."],
    roundoff: float | None = None,
) -> Lipschitz:
    """Returns the figure of a classifier that has no parts; `roundoff` is its `unit_roundoff`."""
    quotient = lipschitz_quotient(logits_adv, logits, x_adv, x, roundoff=roundoff)
    return Lipschitz(quotient, None, None, None)


def mixture_lipschitz(
    outputs_adv: tuple[Array, Array, Array],
    outputs: tuple[Array, Array, Array],
    x_adv: Float[Array, "batch ..."],
    x: Float[Array, "batch ..."],
    roundoff: float | None = None,
    router_roundoff: float | None = None,
) -> Lipschitz:
    """Returns the figures of a mixture and of its parts.

    Args:
      outputs_adv: logits [B, K], router logits [B, M] and experts' logits [M, B, K] at x'.
      outputs: the same at x.
      x_adv: adversarial clips, pixels in [0, 1].
      x: clean clips.
      roundoff: `unit_roundoff` of the mixture and its experts; None takes that of the outputs.
      router_roundoff: that of the router.
    """
    (logits_adv, router_adv, experts_adv), (logits, router, experts) = outputs_adv, outputs
    quotient = functools.partial(lipschitz_quotient, roundoff=roundoff)
    of_router = functools.partial(lipschitz_quotient, roundoff=router_roundoff)
    per_expert = jax.vmap(quotient, in_axes=(0, 0, None, None), out_axes=1)
    return Lipschitz(
        quotient(logits_adv, logits, x_adv, x),
        of_router(router_output(router_adv), router_output(router), x_adv, x),
        of_router(router_adv, router, x_adv, x),
        per_expert(experts_adv, experts, x_adv, x),
    )
