"""Per-example losses against NumPy and finite differences of it, in single and double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import (
    cross_entropy,
    difference_of_logits_ratio,
    lipschitz_quotient,
    margin,
    router_output,
    standing_cross_entropy,
    targeted_difference_of_logits_ratio,
)
from jaxmoe.models.precision import unit_roundoff
from tests.night import at_night


def test_cross_entropy(small, reference, assert_gradient):
    s = small()
    plain = reference(s)

    def objective(params, x, y):
        moe = s.mixture()
        return lambda x_adv: cross_entropy(moe.apply(params, x_adv), y)

    def formula(clip_adv, clip, label):
        return plain.cross_entropy(plain.apply(clip_adv), label)

    assert_gradient(objective, lambda x_adv: plain.per_clip(formula, x_adv), s)


@pytest.mark.parametrize("stop_denominator", [False, at_night(True)])
def test_lipschitz_quotient(small, reference, assert_gradient, stop_denominator):
    s = small()
    plain = reference(s)

    def objective(params, x, y):
        moe = s.mixture()
        clean = moe.apply(params, x)
        return lambda x_adv: lipschitz_quotient(
            moe.apply(params, x_adv), clean, x_adv, x, stop_denominator=stop_denominator
        )

    def losses(x_adv, denominator_at):
        clips = zip(x_adv, s.x, denominator_at, strict=True)
        return np.array(
            [
                ((plain.apply(there) - plain.apply(c)) ** 2).mean() / ((at - c) ** 2).mean()
                for there, c, at in clips
            ]
        )

    assert_gradient(
        objective,
        lambda x_adv: losses(x_adv, x_adv),
        s,
        (lambda there: lambda x_adv: losses(x_adv, there)) if stop_denominator else None,
    )


def test_the_quotient_of_a_linear_map_is_its_gain():
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 2, 4)), jnp.float32)
    x_adv = x + 0.01 * jnp.arange(1.0, 4).reshape(3, 1, 1)
    got = lipschitz_quotient(-3 * x_adv, -3 * x, x_adv, x)
    np.testing.assert_allclose(got, 9, rtol=1e-4)


def test_the_quotient_at_the_clean_input_is_zero_and_has_a_finite_gradient():
    x = jnp.ones((2, 3))
    value, gradient = jax.value_and_grad(
        lambda x_adv: jnp.sum(lipschitz_quotient(jnp.tanh(x_adv), jnp.tanh(x), x_adv, x))
    )(x)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_the_quotient_of_a_small_change_is_no_rounding_noise(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(8, 512)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(512, 10)) / 16, dtype)

    def model(x):  # its logits are float32, whatever it computes in
        return jnp.tanh(x.astype(dtype) @ weights).astype(jnp.float32)

    change = jnp.asarray(rng.uniform(-1, 1, x.shape), jnp.float32)
    roundoff = unit_roundoff(model, x)

    def quotients(epsilon, roundoff):
        x_adv = x + epsilon * change
        return np.asarray(lipschitz_quotient(model(x_adv), model(x), x_adv, x, roundoff=roundoff))

    whole = quotients(8 / 255, roundoff)
    np.testing.assert_array_equal(whole, quotients(8 / 255, 0.0))  # nothing changes there
    small = (1e-6, 1e-5, 1e-4, 1e-3)
    for epsilon in small:
        assert (quotients(epsilon, roundoff) < 2 * whole.max()).all()
    if dtype != jnp.float32:  # what the floor is for
        assert max(quotients(epsilon, 0.0).max() for epsilon in small) > 5 * whole.max()


def test_the_floor_follows_the_outputs_where_nothing_else_is_known():
    x = jnp.full((1, 4), 0.5)
    x_adv = x + 1e-3
    assert lipschitz_quotient(2 * x_adv, 2 * x, x_adv, x)[0] == pytest.approx(4, rel=1e-3)
    coarse = (2 * x).astype(jnp.bfloat16)
    assert lipschitz_quotient(coarse + 1, coarse, x_adv, x)[0] == pytest.approx(2**16)


def test_dense_predictions_are_averaged_over_their_pixels():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 5, (2, 3, 4))
    want = (
        np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    )
    got = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.int32))
    np.testing.assert_allclose(got, want.mean((1, 2)), rtol=1e-5)


LOSSES = [
    cross_entropy,
    standing_cross_entropy,
    margin,
    difference_of_logits_ratio,
    lambda logits, labels: targeted_difference_of_logits_ratio(logits, labels, labels * 0),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_void_positions_count_for_nothing(loss):
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(2, 4, 3, 5)), jnp.float32)
    labels = rng.integers(0, 5, (2, 4, 3))
    void = rng.random((2, 4, 3)) < 0.4
    holed = jnp.asarray(np.where(void, -1, labels), jnp.int32)
    value, gradient = jax.value_and_grad(lambda z: jnp.sum(loss(z, holed)))(logits)
    assert not np.any(np.asarray(gradient)[void])
    # Each example as a batch of its labelled positions.
    want = sum(
        float(np.mean(loss(logits[b][~void[b]], jnp.asarray(labels[b][~void[b]], jnp.int32))))
        for b in range(2)
    )
    np.testing.assert_allclose(value, want, rtol=1e-5)
    empty = jnp.full((2, 4, 3), -1, jnp.int32)
    np.testing.assert_array_equal(loss(logits, empty), 0)


def test_what_has_fallen_adds_nothing_to_the_standing_loss():
    logits = jnp.asarray([[[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]]])
    labels = jnp.asarray([[0, 0, -1]])
    loss, gradient = jax.value_and_grad(lambda z: jnp.sum(standing_cross_entropy(z, labels)))(
        logits
    )
    np.testing.assert_allclose(loss, np.log1p(np.exp(-3.0)) / 2, rtol=1e-5)
    assert not np.any(gradient[0, 1:])
    assert np.any(gradient[0, 0])


def test_router_output():
    logits = jnp.array([[0.0, np.log(3.0)]], jnp.float32)
    np.testing.assert_allclose(router_output(logits), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_array_equal(router_output(logits, "logits"), logits)
    with pytest.raises(ValueError, match=r"attack.router_output: 'weight' is not one of"):
        router_output(logits, "weight")
