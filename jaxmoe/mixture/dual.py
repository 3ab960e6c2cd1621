"""A dual model: a standard mixture beside a robust one, `F_D = (1 − α) F_S + α F_R`.

It is the robust mixture with a head that adds the standard one, so whatever attacks or trains the
parts of a mixture takes those of F_R, and what comes out is scored by F_D.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoe.mixture.mixture import Mixture, Params, no_head, with_head


def dual_mixture(standard: Mixture, robust: Mixture, alpha: float) -> Mixture:
    """The dual model of two mixtures with the same classes, on logits.

    Its params are `{"router", "experts"}` of F_R, `"standard"` of F_S and the number `"alpha"`. α
    is an array to the compiler: a curve over α is one `vmap` over `with_dual_weight(params, α)`,
    and evaluations at several α compile once.

    Args:
      standard: F_S.
      robust: F_R.
      alpha: α that `init` puts into the params, 0 ≤ α ≤ 1; from ½ on there are certificates.

    Reference: ICML 2025, "Optimizing Robustness and Accuracy in Mixture of Experts: A Dual-Model
    Approach" (https://arxiv.org/abs/2502.06832).

    Raises:
      ValueError: α outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"mixture.dual_weight: {alpha} is not accepted; expected a number from 0 to 1"
        )

    def init(key, x):
        robust_key, standard_key = jax.random.split(key)
        parts = robust.init(robust_key, x)
        return with_dual_weight({**parts, "standard": standard.init(standard_key, x)}, alpha)

    def head(params, x, output):
        weight = params["alpha"].astype(output.dtype)
        return (1 - weight) * standard.apply(params["standard"], x) + weight * output

    return with_head(robust._replace(init=init, standard=standard), head)


def robust_part(dual: Mixture) -> Mixture:
    """F_R alone; it takes the dual model's params."""
    return with_head(dual._replace(standard=None), no_head)


def with_dual_weight(params: Params, alpha: Float[Array, ""] | float) -> Params:
    """A dual model's params with another α."""
    return {**params, "alpha": jnp.asarray(alpha, jnp.float32)}
