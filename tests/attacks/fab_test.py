"""FAB: projections onto a plane in a box, and the distance to boundaries that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.attacks import AttackSettings, build_attack
from jaxmoe.attacks.fab import change_to_plane
from jaxmoe.attacks.objectives import margin
from jaxmoe.threat import ThreatModel
from tests.night import at_night

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
N = 6


@pytest.mark.parametrize("norm", ["linf", "l2"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_no_smaller_change_reaches_the_plane(norm, seed):
    rng = np.random.default_rng(seed)
    x, normal = rng.uniform(size=(1, N)), rng.normal(size=(1, N)) * rng.integers(0, 2, (1, N))
    low, high = np.minimum(normal, 0).sum(), np.maximum(normal, 0).sum()  # over the box
    level = rng.uniform(low, high, 1)
    with jax.enable_x64(True):
        change = np.asarray(change_to_plane(x, normal, level, ThreatModel(norm)))
    moved = x + change
    assert (moved >= -1e-9).all()
    assert (moved <= 1 + 1e-9).all()
    np.testing.assert_allclose((moved * normal).sum(), level[0], atol=1e-9)

    # Optimality: of a convex problem, a bisection on the multiplier finds the one solution.
    gap = level[0] - (x * normal).sum()
    slopes = normal[0] * np.sign(gap)
    room = np.where(slopes > 0, 1 - x[0], x[0])
    speed = np.abs(slopes) if norm == "l2" else (slopes != 0).astype(float)
    least, most = 0.0, 1e9
    for _ in range(200):
        middle = (least + most) / 2
        gained = (np.abs(slopes) * np.minimum(middle * speed, room)).sum()
        least, most = (middle, most) if gained < abs(gap) else (least, middle)
    want = np.sign(slopes) * np.minimum(most * speed, room)
    np.testing.assert_allclose(change[0], want, atol=1e-6)


def test_a_plane_beyond_the_box_is_met_at_its_corner():
    change = change_to_plane(
        jnp.array([[0.25, 0.5]]), jnp.array([[1.0, -1.0]]), jnp.array([9.0]), ThreatModel()
    )
    np.testing.assert_allclose(change, [[0.75, -0.5]])


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("fab-t", "l2"),
        *(at_night(*case) for case in (("fab", "linf"), ("fab", "l2"), ("fab-t", "linf"))),
    ],
)
def test_it_finds_the_distance_to_a_linear_models_boundary(name, norm):
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(12, 5)), jnp.float32)
    x = jnp.asarray(rng.uniform(0.4, 0.6, (8, 2, 2, 3)), jnp.float32)

    def model(params, x):
        return x.reshape(x.shape[0], -1) @ params

    logits = model(weights, x)
    y = jnp.argmax(logits, -1)
    slopes = weights.T[None] - weights.T[y][:, None]
    order = 1 if norm == "linf" else 2
    gaps = jnp.take_along_axis(logits, y[:, None], -1) - logits
    lengths = jnp.linalg.norm(slopes, ord=order, axis=-1)
    distances = np.asarray(
        jnp.where(lengths > 0, gaps / jnp.maximum(lengths, 1e-9), jnp.inf).min(1)
    )

    def broken(scale):
        threat = ThreatModel(norm, jnp.asarray(scale * distances, jnp.float32))
        attack = build_attack(name, model, threat, AttackSettings(steps=10))
        found = jax.jit(attack, compiler_options=FAST)(jax.random.key(0), weights, x, y)
        return np.asarray(jnp.argmax(model(weights, found.x_adv), -1) != y)

    assert broken(1.02).all()
    assert not broken(0.98).any()


def test_a_gradient_that_is_no_number_is_seen():
    def broken(params, x):
        # The square root's slope at 0 is infinite, times 0.
        return params * x.reshape(x.shape[0], -1)[:, :3] + jnp.sqrt(0 * jnp.sum(x))

    x = jnp.full((2, 2, 2, 1), 0.5)
    settings = AttackSettings(steps=2)
    for name in ("fab", "fab-t"):
        attack = build_attack(name, broken, ThreatModel("linf", 0.1), settings)
        assert not attack(jax.random.key(0), 1.0, x, jnp.zeros(2, jnp.int32)).finite.any()


@pytest.mark.parametrize("name", ["fab", "fab-t"])
def test_its_loss_is_that_of_what_it_returns_also_where_the_boundary_is_out_of_reach(name):
    def model(params, x):
        return x.reshape(x.shape[0], -1) @ params

    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    x = jnp.asarray(rng.uniform(0.4, 0.6, (4, 2, 2, 1)), jnp.float32)
    y = jnp.argmax(model(weights, x), -1)
    attack = build_attack(name, model, ThreatModel("linf", 1e-3), AttackSettings(steps=3))
    found = jax.jit(attack, compiler_options=FAST)(jax.random.key(0), weights, x, y)
    np.testing.assert_allclose(found.loss, margin(model(weights, found.x_adv), y), atol=1e-6)
    assert (found.loss < 0).any()
