"""Steps against loops in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.attacks import momentum, steepest_direction, steepest_step, temporal_momentum
from jaxmoe.attacks.updates import step_sizes_of

SHAPE = (2, 4, 3, 1)


def gradients(seed, count=3):
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def run(update, gradients):
    state = update.init(jnp.zeros(SHAPE))
    steps = []
    for gradient in gradients:
        step, state = update.update(jnp.asarray(gradient), state)
        steps.append(step)
    return np.stack(steps)


def step_sizes(update, gradients):
    """Returns α of each frame, step by step."""
    state, found = update.init(jnp.zeros(SHAPE)), []
    for gradient in gradients:
        state = update.update(jnp.asarray(gradient), state)[1]
        found.append(step_sizes_of(state))
    return np.stack(found)


def direction(norm, gradient):
    if norm == "linf":
        return np.sign(gradient)
    return gradient / np.sqrt((gradient**2).sum((1, 2, 3), keepdims=True))


@settings(max_examples=20, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    axis=st.sampled_from(["iterations", "frames"]),
    way=st.sampled_from(["shorten", "boost"]),
    decay=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 1000),
)
def test_temporal_momentum_of_both_axes_and_directions(norm, axis, way, decay, seed):
    given_gradients = gradients(seed)
    update = temporal_momentum(norm, 0.1, decay, axis=axis, direction=way)
    got, sizes = run(update, given_gradients), step_sizes(update, given_gradients)
    velocity = np.zeros(SHAPE[:2])
    for gradient, step, size in zip(given_gradients.astype(np.float64), got, sizes, strict=True):
        if axis == "frames":
            velocity = np.zeros(SHAPE[:2])
        for b in range(SHAPE[0]):
            for t in range(SHAPE[1]):
                before = velocity[b, t] if axis == "iterations" else velocity[b, t - 1] * (t > 0)
                velocity[b, t] = decay * before + np.linalg.norm(gradient[b, t])
        factor = 1 + np.log(1 + np.sqrt(velocity))
        alpha = 0.1 * factor if way == "boost" else 0.1 / factor
        want = alpha[:, :, None, None] * direction(norm, gradient)
        np.testing.assert_allclose(step, want, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(size, alpha, rtol=1e-4)


def test_step_sizes_are_those_of_temporal_momentum_wherever_it_stands_in_a_chain():
    alone = temporal_momentum("linf", 0.1)
    chain = optax.chain(optax.identity(), optax.chain(alone, optax.identity()))
    np.testing.assert_array_equal(step_sizes(chain, gradients(0)), step_sizes(alone, gradients(0)))
    assert step_sizes_of(optax.chain(momentum(), steepest_step("linf", 0.1)).init(0.0)) is None


def test_momentum_of_mi_fgsm():
    given_gradients = gradients(0)
    got = run(momentum(0.7), given_gradients)
    velocity = np.zeros(SHAPE)
    for gradient, step in zip(given_gradients, got, strict=True):
        velocity = 0.7 * velocity + gradient / np.abs(gradient).sum((1, 2, 3), keepdims=True)
        np.testing.assert_allclose(step, velocity, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_step_has_its_length_for_each_example(norm):
    step = run(steepest_step(norm, jnp.array([0.1, 0.3])), gradients(1, 1))[0].reshape(2, -1)
    length = np.abs(step).max(1) if norm == "linf" else np.linalg.norm(step, axis=1)
    np.testing.assert_allclose(length, [0.1, 0.3], rtol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e25])
def test_the_direction_is_the_steepest_whatever_the_gradients_size(norm, scale):
    gradient = gradients(2, 1)[0]
    got = steepest_direction(norm, jnp.asarray(gradient * np.float32(scale)))
    np.testing.assert_allclose(got, direction(norm, gradient), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_gradient_no_step(norm):
    for update in (steepest_step(norm, 0.1), momentum(0.9), temporal_momentum(norm, 0.1)):
        np.testing.assert_array_equal(run(update, np.zeros((2, *SHAPE), np.float32)), 0)


def test_momentum_accumulates_tiny_gradients_too():
    tiny = run(momentum(0.9), gradients(3) * np.float32(1e-20))
    np.testing.assert_allclose(tiny, run(momentum(0.9), gradients(3)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"axis": "time"}, r"attack.momentum_axis: 'time' is not one of iterations, frames"),
        ({"direction": "up"}, r"attack.momentum_direction: 'up' is not one of shorten, boost"),
    ],
)
def test_unknown_choices_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        temporal_momentum("linf", 0.1, **fields)


def test_inputs_without_frames_are_refused():
    with pytest.raises(ValueError, match=r"no frames in inputs of shape \(2, 3\)"):
        temporal_momentum("linf", 0.1).init(jax.numpy.zeros((2, 3)))
