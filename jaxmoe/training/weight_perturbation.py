"""Adversarial weight perturbation (AWP): a gradient is taken where the loss nearby is larger.

Wu et al. 2020, section 4.2, https://arxiv.org/abs/2004.05884.
"""

import jax
import jax.numpy as jnp

from jaxmoe.parallel import of_experts
from jaxmoe.training.optimizer import decays
from jaxmoe.training.phase import Params


def perturb_weights(params: Params, gradient: Params, gamma: float) -> Params:
    """Returns `w + γ ‖w‖ g / ‖g‖` for each kernel or matrix; the rest as it is.

    Norms are of one layer, of stacked experts of one expert's layer.

    Args:
      params: all parts.
      gradient: of the loss, by the parts that move.
      gamma: γ, the perturbation's size as a share of the weights'.
    """
    moving = {part: params[part] for part in gradient}

    def perturb(path, w, g, acts):
        if not acts:
            return w
        axes = tuple(range(int(of_experts(path)), w.ndim))
        size, slope = (jnp.sqrt(jnp.sum(jnp.square(v), axes, keepdims=True)) for v in (w, g))
        # An expert that no example reached has no gradient, and stays.
        return w + gamma * size * g / jnp.maximum(slope, 1e-12)

    moved = jax.tree_util.tree_map_with_path(perturb, moving, gradient, decays(moving))
    return {**params, **moved}
