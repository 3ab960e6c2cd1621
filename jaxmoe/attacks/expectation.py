"""Losses that are means over several looks at one input: random noise, shifts in time.

Axes: B = batch, N = looks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoe.attacks.perturb import spread, take_look

LookLoss = Callable[[Float[Array, "batch ..."], Array], Float[Array, " batch"]]
"""`(x_adv, number of the look) -> [B]`."""


class Expectation:
    """`Σ_n weights_n · loss(x', n)` as an objective.

    Its gradient is added up look by look in the loop that computes the losses: N gradients, with
    the memory of one. It is differentiable in x' alone, not in what `loss` closes over.
    """

    def __init__(self, loss: LookLoss, weights: Float[Array, " looks"]):
        """Takes the loss of one look, and the weight of each."""
        self._loss, self._weights = loss, weights
        self._objective = jax.custom_vjp(self._mean)
        self._objective.defvjp(lambda x_adv: self.look(x_adv, True), _backward)

    def __call__(self, x_adv: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Returns the mean loss."""
        return self._objective(x_adv)

    def look(
        self, x_adv: Float[Array, "batch ..."], wanted: Array | bool
    ) -> tuple[Float[Array, " batch"], Float[Array, "batch ..."]]:
        """Returns the mean loss and its gradient, which is 0 and costs nothing if not `wanted`."""

        def add(totals, weight, number):
            losses, gradient = take_look(lambda x: self._loss(x, number), x_adv, wanted)
            own, pull = (weight.astype(part.dtype) * part for part in (losses, gradient))
            return totals[0] + own, totals[1] + pull

        return self._sum(add, self._no_loss(x_adv), jnp.zeros_like(x_adv))

    def _mean(self, x_adv):
        def add(totals, weight, number):
            losses = self._loss(x_adv, number)
            return (totals[0] + weight.astype(losses.dtype) * losses,)

        return self._sum(add, self._no_loss(x_adv))[0]

    def _sum(self, add, *zeros):
        looks = self._weights, jnp.arange(self._weights.shape[0])
        return jax.lax.scan(lambda totals, look: (add(totals, *look), None), zeros, looks)[0]

    def _no_loss(self, x_adv):
        number = jax.ShapeDtypeStruct((), jnp.int32)
        return jnp.zeros(x_adv.shape[0], jax.eval_shape(self._loss, x_adv, number).dtype)


def _backward(gradient, cotangent):
    return (spread(cotangent, gradient) * gradient,)
