"""What a threat model allows, for both norms: the ball, the box, and the frames that may change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.threat import ThreatModel, example_keys, example_norm, per_example_keys

SHAPES = [(2, 3, 4, 4, 1), (3, 2, 5)]
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.partial(jax.jit, compiler_options=FAST)
def allowed_inputs(threat, key, x_adv, x):
    projected = threat.project(x_adv, x)
    return projected, threat.project(projected, x), threat.random_start(key, x)


@functools.partial(jax.jit, compiler_options=FAST)
def random_start(threat, key, x):
    return threat.random_start(key, x)


def length(norm, x_adv, x):
    delta = (np.asarray(x_adv, np.float64) - np.asarray(x, np.float64)).reshape(len(x), -1)
    return np.abs(delta).max(1) if norm == "linf" else np.sqrt((delta**2).sum(1))


def pixels(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


@settings(max_examples=30, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    shape=st.sampled_from(SHAPES),
    epsilon=st.one_of(st.just(0.0), st.floats(1e-4, 3.0)),
    seed=st.integers(0, 2**31 - 1),
    far=st.floats(0, 100),
    data=st.data(),
)
def test_projection_and_random_start_are_allowed(norm, shape, epsilon, seed, far, data):
    frames = np.array(data.draw(st.lists(st.booleans(), min_size=shape[1], max_size=shape[1])))
    threat = ThreatModel(norm, jnp.float32(epsilon), frames=jnp.asarray(frames))
    x = pixels(shape, seed)
    x_adv = x + far * (pixels(shape, seed + 1) - 0.5)
    inputs = allowed_inputs(threat, jax.random.key(seed), x_adv, x)
    x, projected, again, start = map(np.asarray, (x, *inputs))
    for allowed in (projected, start):
        assert (length(norm, allowed, x) <= epsilon + 1e-6).all()
        assert (allowed >= 0).all()
        assert (allowed <= 1).all()
        np.testing.assert_array_equal(allowed[:, ~frames], x[:, ~frames])
        if epsilon == 0:
            np.testing.assert_array_equal(allowed, x)
    # An allowed input stays where it is.
    np.testing.assert_allclose(again, projected, atol=1e-6)


def test_projection_reaches_the_surface_of_the_ball():
    x = jnp.full((2, 3, 4), 0.5)
    direction = pixels(x.shape, 0) - 0.5
    linf = ThreatModel("linf", 0.1).project(x + 100 * direction, x)
    np.testing.assert_allclose(linf, 0.5 + 0.1 * np.sign(direction), atol=1e-6)
    l2 = ThreatModel("l2", 0.1).project(x + 100 * direction, x)
    unit = direction / np.sqrt((np.asarray(direction) ** 2).sum((1, 2), keepdims=True))
    np.testing.assert_allclose(l2, 0.5 + 0.1 * unit, atol=1e-6)


def test_a_flat_change_stays_in_the_ball_for_all_its_rounding():
    # Every pixel of a region is rounded the same way, and a norm sums all of it.
    grey = jnp.array([37.0, 100.0, 201.0]).reshape(3, 1, 1, 1, 1)
    x = jnp.broadcast_to(grey / 255, (3, 16, 112, 112, 3))
    for epsilon in (0.5, 2.0):
        allowed = np.asarray(ThreatModel("l2", epsilon).project(x + 0.1, x), np.float64)
        size = np.sqrt(((allowed - np.asarray(x, np.float64)) ** 2).sum((1, 2, 3, 4)))
        assert (size <= epsilon * (1 + 1e-6)).all()
        np.testing.assert_allclose(size, epsilon, rtol=1e-4)


@functools.partial(jax.jit, compiler_options=FAST)
def allowed_and_its_size(threat, x_adv, x):
    allowed = threat.project(x_adv, x)
    return allowed, threat.size(allowed, x)


@settings(max_examples=40, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
    grey=st.integers(0, 255),
    epsilon=st.one_of(st.sampled_from([4 / 255, 0.5, 1.0]), st.floats(1e-5, 1.0)),
    change=st.floats(-1, 1),
    flat=st.booleans(),
)
def test_no_rounding_leaves_the_ball(norm, dtype, grey, epsilon, change, flat):
    shape = (1, 8, 64, 64, 3)
    noise = np.zeros(shape) if flat else np.random.default_rng(grey).uniform(-0.01, 0.01, shape)
    x = jnp.asarray(grey / 255 + noise, dtype)
    threat = ThreatModel(norm, jnp.float32(epsilon))
    allowed, size = allowed_and_its_size(threat, x + jnp.asarray(change, dtype), x)
    assert allowed.dtype == dtype
    assert (
        length(norm, allowed.astype(jnp.float32), x.astype(jnp.float32)) <= threat.epsilon
    ).all()
    # Another program adds up in another order.
    assert size <= threat.epsilon
    assert threat.size(allowed, x) <= threat.epsilon


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_numbers_too_small_for_a_half_precision_stay_in_the_ball(norm):
    x = jnp.full((1, 2, 3, 1), 5e-5, jnp.float16)
    threat = ThreatModel(norm, 1e-6)
    projected = threat.project(x + jnp.float16(1), x)
    assert length(norm, projected, x).max() <= 1e-6


def test_the_length_of_ten_million_equal_numbers():
    x = jnp.full((1, 64, 224, 224, 3), 0.1)
    want = np.float32(0.1) * np.sqrt(float(x.size))
    np.testing.assert_allclose(jax.jit(example_norm)(x).ravel(), [want], rtol=2e-7)


def test_epsilon_and_frames_may_differ_by_example():
    x = jnp.full((2, 2, 3), 0.5)
    frames = jnp.array([[True, False], [True, True]])
    got = ThreatModel("linf", jnp.array([0.1, 0.2]), frames=frames).project(x + 1, x)
    np.testing.assert_allclose(got[:, :, 0], [[0.6, 0.5], [0.7, 0.7]], atol=1e-6)


def test_a_clean_pixel_outside_the_box_is_left_there():
    x = jnp.array([[1.25, -0.25, 0.5]])
    got = ThreatModel("linf", 0.1).project(x, x)
    np.testing.assert_array_equal(got, x)
    pushed = ThreatModel("linf", 0.1).project(x + jnp.array([[1.0, -1.0, 1.0]]), x)
    np.testing.assert_allclose(pushed, [[1.25, -0.25, 0.6]], atol=1e-6)


def test_random_starts_are_uniform_in_the_ball():
    x = jnp.full((2000, 2, 2), 0.5)
    linf = random_start(ThreatModel("linf", 0.2), jax.random.key(0), x) - 0.5
    np.testing.assert_allclose(np.quantile(linf, [0.1, 0.5, 0.9]), [-0.16, 0, 0.16], atol=0.01)
    l2 = random_start(ThreatModel("l2", 0.2), jax.random.key(0), x) - 0.5
    radius = np.sqrt((np.asarray(l2) ** 2).sum((1, 2)))
    np.testing.assert_allclose(np.quantile(radius, [0.1, 0.5, 0.9]), [0.02, 0.1, 0.18], atol=0.01)
    np.testing.assert_allclose(np.mean(l2, axis=0), 0, atol=0.01)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_random_start_belongs_to_the_example_and_not_to_its_place(norm):
    threat = ThreatModel(norm, 0.1)
    x = pixels((4, 3, 2), 0)
    keys = example_keys(jax.random.key(3), jnp.array([7, 1, 5, 2]))
    whole = random_start(threat, keys, x)
    order = jnp.array([2, 0])
    np.testing.assert_array_equal(random_start(threat, keys[order], x[order]), whole[order])
    assert len(np.unique(np.asarray(whole - x)[:, 0, 0])) == 4


def test_a_single_key_stands_for_the_positions_in_the_batch():
    key = jax.random.key(1)
    got = jax.random.key_data(per_example_keys(key, 3))
    want = [jax.random.key_data(jax.random.fold_in(key, i)) for i in range(3)]
    np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="key: 2 keys for a batch of 3"):
        per_example_keys(jax.random.split(key, 2), 3)


def test_size_is_the_norm_of_the_change():
    x, x_adv = pixels((3, 2, 4), 0), pixels((3, 2, 4), 1)
    for norm in ("linf", "l2"):
        got = ThreatModel(norm, 0.1).size(x_adv, x)
        np.testing.assert_allclose(got, length(norm, x_adv, x), rtol=1e-5)


def test_projections_for_many_epsilons_compile_once():
    compiled = jax.jit(lambda threat, x_adv, x: threat.project(x_adv, x))
    x = pixels((2, 3), 0)
    for epsilon in (0.0, 0.1, 0.2, 0.3):
        compiled(ThreatModel("linf", epsilon), x, x)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "l1"}, "threat.norm: 'l1' is not one of linf, l2"),
        ({"bounds": (1.0, 1.0)}, "threat.bounds"),
        ({"epsilon": -0.1}, "threat.epsilon: -0.1"),
        ({"epsilon": float("nan")}, "threat.epsilon: nan"),
        ({"epsilon": float("inf")}, "threat.epsilon: inf"),
    ],
)
def test_impossible_threats_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ThreatModel(**fields)


@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 3)])
def test_a_mask_that_does_not_fit_is_refused(shape):
    x = jnp.zeros(shape)
    with pytest.raises(ValueError, match=r"threat.frames: a mask of 3 frames does not fit"):
        ThreatModel(frames=jnp.ones(3, bool)).project(x, x)
