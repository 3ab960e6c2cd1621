"""The moving average of the params, which is judged beside them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxmoe.training.phase import Params


def moving_average(average: Params, params: Params, step: Int[Array, ""], decay: float) -> Params:
    """Returns `d · average + (1 − d) · params`, with `d = min(decay, (1 + t) / (10 + t))`.

    At first it follows quickly, so that the params before training do not stay in it. Izmailov et
    al. 2018, https://arxiv.org/abs/1803.05407, and for robustness Gowal et al. 2020, section 4.4,
    https://arxiv.org/abs/2010.03593.

    Args:
      average: of the steps before.
      params: after step t.
      step: t, from 1.
      decay: below 1.
    """
    t = step.astype(jnp.float32)
    rest = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(lambda a, p: a + rest.astype(a.dtype) * (p - a), average, params)
