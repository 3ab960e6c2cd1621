"""Square: what it draws, and that it needs no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings, build_attack
from jaxmoe.attacks.square import as_clips
from jaxmoe.threat import ThreatModel
from tests.night import at_night

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
EPSILON = 0.05
NORMS = ("linf", "l2")


def brightness(params, x):
    """Two classes, told apart by the mean pixel; steps without a gradient."""
    level = jnp.mean(jnp.round(255 * x) / 255, axis=tuple(range(1, x.ndim))) - params
    return jnp.stack([level, -level], axis=-1)


def attack(name, x, y, threat, params=0.5, **settings):
    run = build_attack(name, brightness, threat, AttackSettings(**settings))
    return jax.jit(run, compiler_options=FAST)(jax.random.key(0), jnp.float32(params), x, y)


@pytest.mark.parametrize(
    ("shape", "norm"),
    [
        ((3, 4, 10, 12, 3), "l2"),
        ((3, 47), "linf"),
        *(at_night(shape, norm) for shape in ((3, 10, 12, 3), (3, 9, 11)) for norm in NORMS),
        at_night((3, 4, 10, 12, 3), "linf"),
        at_night((3, 47), "l2"),
    ],
)
def test_it_breaks_what_has_no_gradient(norm, shape):
    x = jnp.full(shape, 0.51)
    y = jnp.zeros(3, jnp.int32)
    epsilon = EPSILON if norm == "linf" else 0.05 * np.sqrt(np.prod(shape[1:]))
    threat = ThreatModel(norm, epsilon)
    blind = attack("pgd", x, y, threat, steps=5)
    assert (blind.zero_gradient == 1).all()
    found = attack("square", x, y, threat, queries=200)
    assert (jnp.argmax(brightness(0.5, found.x_adv), -1) == 1).all()
    assert (threat.size(found.x_adv, x) <= epsilon + 1e-6).all()
    assert (found.loss > 0).all()
    assert found.finite.all()


@pytest.mark.parametrize("norm", ["linf", at_night("l2")])
def test_it_stops_where_all_are_wrong_and_goes_on_where_they_are_not(norm):
    x, y = jnp.full((2, 10, 10, 1), 0.5), jnp.zeros(2, jnp.int32)
    done = attack("square", x, y, ThreatModel(norm, 0.01), params=0.9, queries=20)
    np.testing.assert_array_equal(done.loss_trace, jnp.broadcast_to(done.loss, (3, 2)))
    hopeless = attack("square", x, y, ThreatModel(norm, 0.01), params=0.1, queries=20)
    assert len(np.unique(np.asarray(hopeless.loss_trace))) > 2
    np.testing.assert_array_equal(hopeless.loss, hopeless.loss_trace.max(0))


def test_its_trace_is_the_best_of_a_search_as_long_and_its_length_does_not_grow():
    x, y = jnp.full((2, 10, 10, 1), 0.5), jnp.zeros(2, jnp.int32)
    threat = ThreatModel("linf", 0.01)
    trace = attack("square", x, y, threat, params=0.3, queries=30).loss_trace
    assert trace.shape == (3, 2)
    assert (jnp.diff(trace, axis=0) >= 0).all()
    assert (trace[-1] > trace[0]).all()
    shorter = attack("square", x, y, threat, params=0.3, queries=10)
    np.testing.assert_array_equal(trace[1], shorter.loss)
    standard = build_attack("square", brightness, threat, AttackSettings())
    shapes = jax.eval_shape(standard, jax.random.key(0), jnp.float32(0.3), x, y)
    assert shapes.loss_trace.shape == (9, 2)  # of 5001 looks


def test_a_look_that_is_no_number_is_seen():
    def broken(params, x):
        return brightness(params, x) / jnp.where(jnp.mean(x) == 0.5, 1.0, 0.0)

    x, y = jnp.full((2, 10, 10, 1), 0.5), jnp.zeros(2, jnp.int32)
    run = build_attack("square", broken, ThreatModel("linf", 0.1), AttackSettings(queries=5))
    found = jax.jit(run, compiler_options=FAST)(jax.random.key(0), jnp.float32(0.3), x, y)
    assert not found.finite.any()


@pytest.mark.parametrize(("span", "alike"), [(None, True), (2, False)])
def test_squares_span_all_frames_or_a_window(span, alike):
    x, y = jnp.full((4, 6, 10, 10, 3), 0.5), jnp.zeros(4, jnp.int32)
    threat = ThreatModel("linf", EPSILON)
    found = attack("square", x, y, threat, params=0.1, queries=10, square_frames=span)
    delta = np.asarray(found.x_adv - x)
    np.testing.assert_allclose(np.abs(delta), EPSILON, atol=1e-6)  # all of the ball's corners
    assert (delta == delta[:, :1]).all() == alike


@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 5), (2, 3, 5, 2), (2, 2, 2, 3, 2), (2, 1)])
def test_inputs_of_any_rank_are_clips_and_none_of_their_numbers_is_lost(shape):
    x = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    clips = as_clips(x)
    assert clips.ndim == 5
    flat = clips.reshape(2, -1)
    np.testing.assert_array_equal(flat[:, : x[0].size], x.reshape(2, -1))
    assert not flat[:, x[0].size :].any()
