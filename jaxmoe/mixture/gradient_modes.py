"""Modes of a mixture's gradient, as an attack sees it. Scoring always uses the hard forward."""

from collections.abc import Callable

import jax

from jaxmoe.choices import GRADIENT_MODES, GradientMode
from jaxmoe.mixture.mixture import Clips, Mixture, Params, apply_soft


def with_gradient(mixture: Mixture, mode: GradientMode) -> Callable[[Params, Clips], jax.Array]:
    """F with the gradient of `mode`.

    Args:
      mixture: the mixture.
      mode: `"hard"`, the true gradient of the hard forward; `"soft"`, value and gradient of the
        dense mixture Σ_i a_i E_i; `"straight_through"`, the hard value with the soft gradient.

    Raises:
      ValueError: an unknown mode.
    """
    if mode == "hard":
        return mixture.apply
    if mode == "soft":
        return lambda params, x: apply_soft(mixture, params, x)
    if mode == "straight_through":

        def straight_through(params, x):
            soft = apply_soft(mixture, params, x)
            hard = jax.lax.stop_gradient(mixture.apply(params, x))
            # In this order the difference is exactly 0 and the value exactly the hard one.
            return hard + (soft - jax.lax.stop_gradient(soft))

        return straight_through
    raise ValueError(f"attack.gradient: {mode!r} is not one of {', '.join(GRADIENT_MODES)}")
