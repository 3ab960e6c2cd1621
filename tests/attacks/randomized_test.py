"""Noise that is a pure function of the input: it repeats, differs and knows no neighbours."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import AttackSettings, Randomized
from jaxmoe.attacks.attack import loss_of_logits
from jaxmoe.attacks.randomized import bits_number, draw

X = jax.random.uniform(jax.random.key(0), (6, 2, 3))


def noise(params, x, key):
    return params * x.reshape(1, -1) + jax.random.normal(key, (1, 6))


MODEL = Randomized(noise)


def test_a_draw_repeats_and_another_draw_or_input_differs():
    first = draw(MODEL, 0)(2.0, X)
    np.testing.assert_array_equal(first, draw(MODEL, 0)(2.0, X))
    own = first - 2.0 * X.reshape(6, -1)
    assert not np.isclose(own, draw(MODEL, 1)(2.0, X) - 2.0 * X.reshape(6, -1)).any()
    moved = X.at[:, 0, 0].add(1e-6)
    assert not np.isclose(own, draw(MODEL, 0)(2.0, moved) - 2.0 * moved.reshape(6, -1)).any()
    assert abs(np.std(own) - 1) < 0.5


def test_neighbours_and_order_do_not_matter():
    order = jnp.array([3, 1])
    np.testing.assert_array_equal(draw(MODEL, 0)(2.0, X[order]), draw(MODEL, 0)(2.0, X)[order])


def test_the_numbers_of_clips_with_the_same_pixels_elsewhere_differ():
    x = jnp.zeros((4, 8)).at[jnp.arange(4), jnp.arange(4)].set(1.0)
    assert len(set(np.asarray(bits_number(x)).tolist())) == 4


def test_the_loss_is_the_mean_of_the_draws_losses():
    settings = AttackSettings(draws=4)
    objective = loss_of_logits(MODEL, settings, 2.0, lambda logits: jnp.sum(logits**2, axis=-1))
    value, pull = jax.vjp(objective, X)

    def written_out(x):
        return sum(jnp.sum(draw(MODEL, n)(2.0, x) ** 2, axis=-1) for n in range(4)) / 4

    expected, expected_pull = jax.vjp(written_out, X)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(pull(value)[0], expected_pull(value)[0], rtol=1e-5)
