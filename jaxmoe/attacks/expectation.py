"""Losses that are means over several looks at one input: random noise, shifts in time.

Axes: B = batch, N = looks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoe.attacks.perturb import Objective, spread

LookLoss = Callable[[Float[Array, "batch ..."], Array], Float[Array, " batch"]]
"""`(x_adv, number of the look) -> [B]`."""


def expectation(loss: LookLoss, weights: Float[Array, " looks"]) -> Objective:
    """`Σ_n weights_n · loss(x', n)` as an objective.

    Its gradient is added up look by look in the loop that computes the losses: N gradients, with
    the memory of one. It is differentiable in x' alone, not in what `loss` closes over.
    """
    numbers = jnp.arange(weights.shape[0])

    def scan(add, *zeros):
        def step(totals, look):
            return add(totals, *look), None

        return jax.lax.scan(step, zeros, (weights, numbers))[0]

    def no_loss(x_adv):
        first = jax.ShapeDtypeStruct((), numbers.dtype)
        return jnp.zeros(x_adv.shape[0], jax.eval_shape(loss, x_adv, first).dtype)

    @jax.custom_vjp
    def objective(x_adv):
        def add(totals, weight, number):
            losses = loss(x_adv, number)
            return (totals[0] + weight.astype(losses.dtype) * losses,)

        return scan(add, no_loss(x_adv))[0]

    def forward(x_adv):
        def total(x_adv, number):
            losses = loss(x_adv, number)
            return jnp.sum(losses), losses

        def add(totals, weight, number):
            gradient, losses = jax.grad(total, has_aux=True)(x_adv, number)
            own, pull = (weight.astype(part.dtype) * part for part in (losses, gradient))
            return totals[0] + own, totals[1] + pull

        return scan(add, no_loss(x_adv), jnp.zeros_like(x_adv))

    def backward(gradient, cotangent):
        return (spread(cotangent, gradient) * gradient,)

    objective.defvjp(forward, backward)
    return objective
