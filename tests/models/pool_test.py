"""Pooling against XLA's window reduction and against means by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxmoe.models import average_pool_to, max_pool

PADDING = ((1, 1),) * 3


def native(x):
    edges = ((0, 0), *PADDING, (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 3, 1), (1, 2, 2, 2, 1), edges)


def ours(x):
    return max_pool(x, (3, 3, 3), (2, 2, 2), PADDING)


@pytest.mark.parametrize("shape", [(2, 5, 6, 7, 3), (1, 1, 4, 4, 2)])
def test_max_pool_and_its_gradient_equal_xla(shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    np.testing.assert_array_equal(ours(x), native(x))

    def gradient(pool):
        return jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(pool(x)))))(x)

    np.testing.assert_allclose(gradient(ours), gradient(native), rtol=1e-6, atol=1e-7)


def test_max_pool_splits_the_gradient_among_ties():
    x = jnp.zeros((1, 4, 4, 4, 1))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(ours(x))))(x)
    assert bool(jnp.all(gradient >= 0))
    np.testing.assert_allclose(jnp.sum(gradient), ours(x).size, rtol=1e-6)


def test_average_pool_to_averages_cells():
    x = jnp.arange(2 * 4 * 5 * 1, dtype=jnp.float32).reshape(2, 4, 5, 1)
    y = average_pool_to(x, (2, 2))
    assert y.shape == (2, 2, 2, 1)
    # Five columns in two cells share the middle one, as PyTorch's adaptive pooling does.
    np.testing.assert_allclose(y[0, 0, 0, 0], jnp.mean(x[0, :2, :3, 0]), rtol=1e-6)
    np.testing.assert_allclose(y[1, 1, 1, 0], jnp.mean(x[1, 2:, 2:, 0]), rtol=1e-6)


def test_average_pool_to_repeats_a_short_axis():
    x = jnp.asarray([1.0, 2.0]).reshape(1, 2, 1)
    np.testing.assert_allclose(average_pool_to(x, (4,)).ravel(), [1.0, 1.0, 2.0, 2.0])
