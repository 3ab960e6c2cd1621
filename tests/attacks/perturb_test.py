"""The attack loop: what it keeps, counts, reports and needs of memory."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.attacks import perturb, steepest_step, temporal_momentum
from jaxmoe.attacks.perturb import AttackResult, strongest_attempt
from jaxmoe.threat import ThreatModel

KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def total(array):
    return jnp.sum(array, axis=tuple(range(1, array.ndim)))


def waves(x_adv):
    """A loss with many maxima, on which large steps go up and down."""
    return total(jnp.sin(9 * x_adv) + jnp.cos(31 * x_adv))


loss_of = jax.jit(waves, compiler_options=FAST)


@functools.partial(
    jax.jit, static_argnames=("steps", "restarts", "temporal"), compiler_options=FAST
)
def climb(key, x, threat, step_size, steps, restarts=1, temporal=False):
    update = temporal_momentum if temporal else steepest_step
    update = update(threat.norm, step_size)
    return perturb(key, x, waves, threat, update, steps=steps, restarts=restarts)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_loss_is_maximised(norm):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    x = jnp.full(weights.shape, 0.5)
    result = perturb(
        KEY,
        x,
        lambda x_adv: total(weights * x_adv),
        ThreatModel(norm, 0.1),
        steepest_step(norm, 0.05),
        steps=30,
    )
    dual = total(jnp.abs(weights)) if norm == "linf" else jnp.sqrt(total(weights**2))
    np.testing.assert_allclose(result.loss, total(weights * x) + 0.1 * dual, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    shape=st.sampled_from([(3, 2, 4), (2, 3, 2, 2, 1)]),
    epsilon=st.floats(0.01, 0.5),
    share=st.floats(0.05, 2),
    seed=st.integers(0, 1000),
)
def test_the_best_iterate_is_kept_and_more_steps_find_no_worse(norm, shape, epsilon, share, seed):
    x = jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)
    threat, step_size = ThreatModel(norm, epsilon), share * epsilon
    temporal = len(shape) == 5
    few = climb(jax.random.key(seed), x, threat, step_size, 2, temporal=temporal)
    many = climb(jax.random.key(seed), x, threat, step_size, 5, temporal=temporal)
    np.testing.assert_allclose(many.loss_trace[:3], few.loss_trace, rtol=1e-4, atol=1e-4)
    assert (many.loss >= few.loss - 1e-5).all()
    np.testing.assert_array_equal(many.loss, many.loss_trace.max(0))
    np.testing.assert_allclose(loss_of(many.x_adv), many.loss, rtol=1e-4, atol=1e-4)


def test_the_step_sizes_of_temporal_momentum_are_told():
    x = jnp.full((2, 3, 2, 2, 1), 0.5)
    update = temporal_momentum("linf", 0.01, 0.9)
    result = perturb(KEY, x, total, ThreatModel("linf", 0.3), update, steps=4)
    velocity = np.cumsum(2 * 0.9 ** np.arange(4))  # the gradient of a frame has the length 2
    want = 0.01 / (1 + np.log1p(np.sqrt(velocity)))
    np.testing.assert_allclose(
        result.step_sizes, np.broadcast_to(want[None, :, None], (2, 4, 3)), rtol=1e-5
    )
    assert climb(KEY, x, ThreatModel("linf", 0.3), 0.1, 2).step_sizes is None


def test_the_last_iterate_takes_one_look_less():
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(16, 2, 4)), jnp.float32)
    threat, update = ThreatModel("linf", 0.3), steepest_step("linf", 0.2)

    def attack(iterate, **loop):
        return perturb(KEY, x, waves, threat, update, steps=5, iterate=iterate, **loop)

    best, last = attack("best"), attack("last")
    assert last.loss_trace.shape == (5, 16)
    np.testing.assert_array_equal(last.loss_trace, best.loss_trace[:5])
    np.testing.assert_allclose(loss_of(last.x_adv), best.loss_trace[5], rtol=1e-4, atol=1e-4)
    assert (best.loss > loss_of(last.x_adv) + 0.1).any()  # such steps overshoot
    assert np.isnan(last.loss).all()
    for name in ("gradients", "zero_gradient", "finite"):
        np.testing.assert_array_equal(getattr(last, name), getattr(best, name))
    with pytest.raises(ValueError, match=r"attack\.iterate: last .* attack\.restarts = 2"):
        attack("last", restarts=2)


def test_more_restarts_find_no_worse():
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 2, 3)), jnp.float32)
    threat = ThreatModel("linf", 0.3)
    results = [climb(KEY, x, threat, 0.1, 2, restarts=restarts) for restarts in (1, 2, 4)]
    for fewer, more in itertools.pairwise(results):
        assert (more.loss >= fewer.loss - 1e-5).all()
    most = results[-1]
    assert (most.loss > results[0].loss + 1e-3).any()
    assert most.loss_trace.shape == (4 * 3, 4)
    np.testing.assert_allclose(waves(most.x_adv), most.loss, rtol=1e-4, atol=1e-4)
    assert (threat.size(most.x_adv, x) <= 0.3 + 1e-6).all()


def test_of_attempts_that_worked_the_one_of_the_greatest_loss_is_taken():
    losses = jnp.array([[1.0, 1.0, 5.0], [2.0, 3.0, 9.0], [7.0, 2.0, 6.0]])
    worked = jnp.array([[True, False, False], [True, False, True], [False, False, True]])

    def attempt(number):
        none = jnp.zeros(3)
        x_adv = jnp.broadcast_to(jnp.asarray(number, jnp.float32), (3, 1))
        loss = losses[number]
        result = AttackResult(x_adv, loss, loss[None], jnp.asarray(1), none, none == 0)
        sizes = jnp.broadcast_to(x_adv[..., None], (3, 4, 2))
        return result._replace(step_sizes=sizes), worked[number]

    best = strongest_attempt(attempt, 3)
    np.testing.assert_array_equal(best.x_adv[:, 0], [1, 1, 1])
    np.testing.assert_array_equal(best.step_sizes, np.ones((3, 4, 2)))
    np.testing.assert_array_equal(best.loss, [2, 3, 9])


def test_frames_that_may_not_change_take_no_share_of_an_l2_step():
    x = jnp.full((1, 2, 2), 0.5)
    frames = jnp.array([True, False])
    slope = jnp.array([[[1.0, 0.0], [100.0, 100.0]]])
    result = perturb(
        KEY,
        x,
        lambda x_adv: total(slope * x_adv),
        ThreatModel("l2", 0.2, frames=frames),
        steepest_step("l2", 0.1),
        steps=1,
        random_start=False,
    )
    np.testing.assert_allclose(result.x_adv[0], [[0.6, 0.5], [0.5, 0.5]], atol=1e-6)


def test_a_zero_gradient_is_counted_where_the_adversary_can_move():
    x = jnp.full((3, 2, 2), 0.5)
    slope = jnp.array([1.0, 0.0, 1.0]).reshape(3, 1, 1) * jnp.array([0.0, 1.0]).reshape(1, 2, 1)
    frames = jnp.array([[False, True], [False, True], [True, False]])
    result = perturb(
        KEY,
        x,
        lambda x_adv: total(slope * x_adv),
        ThreatModel(frames=frames),
        steepest_step("linf", 0.01),
        steps=4,
    )
    np.testing.assert_array_equal(result.zero_gradient, [0, 1, 1])


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (lambda x_adv: jnp.sqrt(x_adv - x_adv), "gradient"),
        (lambda x_adv: x_adv / (x_adv - x_adv), "loss"),
    ],
)
def test_what_is_not_finite_shows_in_that_example_alone(bad, name):
    x = jnp.full((3, 2, 2), 0.5)
    second = jnp.array([False, True, False])

    def objective(x_adv):
        return total(x_adv) + total(bad(x_adv[1:2]))[0] * second.astype(x_adv.dtype)

    def contained(x_adv):
        return jnp.where(second, objective(x_adv), total(x_adv))

    result = perturb(KEY, x, contained, ThreatModel(), steepest_step("linf", 0.01), steps=2)
    np.testing.assert_array_equal(result.finite, [True, False, True])
    # Even then what is returned is an allowed input.
    assert (ThreatModel().size(result.x_adv, x) <= 8 / 255 + 1e-6).all()


def test_memory_does_not_grow_with_the_steps():
    x = jnp.zeros((2, 8, 32, 32, 3))
    weights = jnp.ones((x[0].size, 5))

    def attack(x, steps):
        def objective(x_adv):
            return total(jnp.tanh(x_adv.reshape(x.shape[0], -1) @ weights))

        return perturb(
            KEY, x, objective, ThreatModel(), temporal_momentum("linf", 0.01), steps=steps
        )

    few, many = (
        jax.jit(functools.partial(attack, steps=steps))
        .lower(x)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for steps in (10, 50)
    )
    assert few >= x.nbytes
    assert many <= 1.02 * few


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, r"attack.steps: 0 is not at least 1"),
        ({"steps": 1, "restarts": 0}, r"attack.restarts: 0"),
        ({"steps": 1, "restarts": 2, "random_start": False}, r"attack.restarts: 2"),
    ],
)
def test_impossible_loops_are_refused(fields, message):
    x = jnp.zeros((1, 2))
    with pytest.raises(ValueError, match=message):
        perturb(KEY, x, total, ThreatModel(), steepest_step("linf", 0.1), **fields)
