"""The loss of labels that recipes minimise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmoe.attacks import cross_entropy, mean_over_labelled
from jaxmoe.training.phase import RecipeOptions

Classify = Callable[
    [Float[Array, "batch ... classes"], Int[Array, "batch ..."]], Float[Array, " batch"]
]
"""`(logits, y) -> [B]`."""


def label_loss(options: RecipeOptions) -> Classify:
    """Returns CE(z, y), or with smoothed labels `(1 − s) CE(z, y) − s mean_k log p_k`.

    Attacks maximise the former whatever s is. Szegedy et al. 2016, section 7,
    https://arxiv.org/abs/1512.00567.

    Args:
      options: `label_smoothing` is s.
    """
    smoothing = options.label_smoothing
    if not smoothing:
        return cross_entropy

    def loss(logits, y):
        uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
        return (1 - smoothing) * cross_entropy(logits, y) + smoothing * mean_over_labelled(
            uniform, y
        )

    return loss
