"""A mean over looks equals the sum written out, in value and gradient, also within `vmap`."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks.expectation import Expectation

WEIGHTS = jnp.array([0.2, 0.3, 0.5])


def test_value_and_gradient_are_those_of_the_weighted_sum():
    x = jax.random.normal(jax.random.key(0), (5, 4))

    def loss(x, number):
        return jnp.sum(jnp.sin(x * (1.0 + jnp.float32(number))), axis=1)

    def written_out(x):
        return sum(weight * loss(x, number) for number, weight in enumerate(WEIGHTS))

    cotangent = jnp.arange(5.0)
    value, pull = jax.vjp(Expectation(loss, WEIGHTS), x)
    expected, expected_pull = jax.vjp(written_out, x)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(pull(cotangent)[0], expected_pull(cotangent)[0], rtol=1e-5)


def test_a_grid_over_what_the_loss_closes_over_is_a_vmap():
    x = jax.random.normal(jax.random.key(0), (5, 4))

    def gradient(scale):
        mean = Expectation(
            lambda x, n: jnp.sum(jnp.sin(scale * x + jnp.float32(n)), axis=1), WEIGHTS
        )
        return jax.grad(lambda x: jnp.sum(mean(x)))(x)

    scales = jnp.array([0.5, 2.0])
    together = jax.jit(jax.vmap(gradient))(scales)
    np.testing.assert_allclose(together, jnp.stack([gradient(s) for s in scales]), rtol=1e-5)
