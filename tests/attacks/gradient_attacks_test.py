"""Attacks on whole classifiers against NumPy, and how their numbers reach the compiler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings, build_attack, fgsm, mi_fgsm, model_loss, pgd
from jaxmoe.threat import ThreatModel
from tests.night import at_night

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
RNG = np.random.default_rng(0)
WEIGHTS, X, Y = RNG.normal(size=(6, 3)), RNG.uniform(0.1, 0.9, (4, 2, 3)), np.array([0, 1, 2, 0])


def classify(params, x):
    return x.reshape(x.shape[0], -1) @ params


def float32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


@pytest.mark.parametrize("top_k", [at_night(1), 2])
def test_model_loss(small, reference, assert_gradient, top_k):
    s = small()
    plain = reference(s, top_k)

    def objective(params, x, y):
        return model_loss(s.mixture(top_k), AttackSettings(lam=0.05), params, x, y)

    def formula(clip_adv, clip, label):
        output_adv, output = plain.apply(clip_adv), plain.apply(clip)
        quotient = plain.quotient(output_adv, output, clip_adv, clip)
        return plain.cross_entropy(output_adv, label) + 0.05 * quotient

    assert_gradient(objective, lambda x_adv: plain.per_clip(formula, x_adv), s)


def loss_and_gradient(x):
    """Cross-entropy of the linear classifier and its gradient in closed form."""
    logits = x.reshape(len(x), -1) @ WEIGHTS
    powers = np.exp(logits)
    error = powers / powers.sum(1, keepdims=True) - np.eye(3)[Y]
    losses = np.log(powers.sum(1)) - logits[np.arange(len(x)), Y]
    return losses, (error @ WEIGHTS.T).reshape(x.shape)


def test_fgsm_is_one_signed_step():
    weights, x = float32(WEIGHTS, X)
    got = jax.jit(fgsm(classify, ThreatModel("linf", 0.05)))(jax.random.key(0), weights, x, Y)
    want = np.clip(X + 0.05 * np.sign(loss_and_gradient(X)[1]), 0, 1)
    np.testing.assert_allclose(got.x_adv, want, atol=1e-6)
    np.testing.assert_allclose(got.loss, loss_and_gradient(want)[0], rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_mi_fgsm_equals_the_published_algorithm(norm):
    epsilon, steps, decay, alpha = 0.3, 4, 0.8, 0.4
    settings = AttackSettings(alpha=alpha, decay=decay, steps=steps)
    weights, x = float32(WEIGHTS, X)
    attack = jax.jit(mi_fgsm(classify, ThreatModel(norm, epsilon), settings))
    got = attack(jax.random.key(0), weights, x, Y)

    def l2(array):
        return np.sqrt((array**2).sum((1, 2), keepdims=True))

    x_adv, velocity, trace = X, np.zeros_like(X), []
    for _ in range(steps):
        losses, gradient = loss_and_gradient(x_adv)
        trace.append(losses)
        velocity = decay * velocity + gradient / np.abs(gradient).sum((1, 2), keepdims=True)
        step = np.sign(velocity) if norm == "linf" else velocity / l2(velocity)
        delta = x_adv + alpha * epsilon * step - X
        if norm == "linf":
            delta = np.clip(delta, -epsilon, epsilon)
        else:
            delta = delta * np.minimum(1, epsilon / l2(delta))
        x_adv = np.clip(X + delta, 0, 1)
    trace.append(loss_and_gradient(x_adv)[0])
    np.testing.assert_allclose(got.loss_trace, trace, rtol=1e-4)


def test_any_classifier_will_do_and_a_mixture_is_one(small):
    s = small()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), s.params)
    (x,), key = float32(s.x), jax.random.key(0)
    moe, threat, settings = s.mixture(), ThreatModel("linf", 0.1), AttackSettings(steps=3)
    jit = functools.partial(jax.jit, compiler_options=FAST)
    as_mixture = jit(pgd(moe, threat, settings))(key, params, x, s.y)
    as_function = jit(pgd(moe.apply, threat, settings))(key, params, x, s.y)
    np.testing.assert_array_equal(as_function.x_adv, as_mixture.x_adv)
    soft = jit(pgd(moe, threat, AttackSettings(steps=3, gradient="soft")))
    assert not np.allclose(soft(key, params, x, s.y).loss, as_mixture.loss)


def test_a_grid_of_epsilon_is_a_vmap(small):
    s = small()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), s.params)
    (x,), settings = float32(s.x), AttackSettings(steps=3, lam=1e-3)

    def run(epsilon):
        attack = build_attack("j-tlga", s.mixture(), ThreatModel("linf", epsilon), settings)
        return attack(jax.random.key(0), params, x, s.y)

    grid = jnp.array([0.0, 0.02, 0.2])
    alone = jax.jit(run, compiler_options=FAST)
    together = jax.jit(jax.vmap(run), compiler_options=FAST)(grid)
    for i, epsilon in enumerate(grid):
        np.testing.assert_allclose(together.x_adv[i], alone(epsilon).x_adv, atol=1e-6)


def test_numbers_of_an_attack_do_not_compile_it_again(small):
    s = small()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), s.params)
    (x,), traces, losses = float32(s.x), [], []

    @functools.partial(jax.jit, compiler_options=FAST)
    def run(threat, settings):
        traces.append(None)
        return build_attack("j-tlga", s.mixture(), threat, settings)(
            jax.random.key(0), params, x, s.y
        ).loss

    for i in (1, 2, 3, 4):
        settings = AttackSettings(
            alpha=0.1 * i, lam=0.1 * i, gamma1=1.0 * i, gamma2=2.0 * i, steps=2
        )
        losses.append(run(ThreatModel("linf", 0.01 * i), settings))
    assert len(traces) == 1
    assert all(not np.allclose(losses[0], other) for other in losses[1:])
