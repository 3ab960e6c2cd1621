"""Programs of attacks that are called outside of `jit`: traced once, and let go with the model."""

import dataclasses
import gc
import sys
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings, build_attack, compiled, pgd
from jaxmoe.attacks.randomized import Randomized
from jaxmoe.mixture import from_functions
from jaxmoe.threat import ThreatModel

KEY = jax.random.key(0)
X = np.random.default_rng(0).random((4, 6), np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
Y = np.arange(4) % 3
SETTINGS = AttackSettings(steps=2)


def counted():
    """A model that counts how often it is traced."""
    looks = []

    def model(params, x):
        looks.append(1)
        return x @ params

    return model, looks


def test_no_call_after_the_first_is_traced_whatever_epsilon_numbers_and_kind_of_pixels():
    model, looks = counted()
    build_attack("pgd", model, ThreatModel("linf", 0.1), SETTINGS)(KEY, WEIGHTS, X, Y)
    once = len(looks)
    assert once
    for epsilon, alpha in ((0.1, 0.25), (0.2, np.float32(0.5)), (np.float64(0.3), jnp.ones(()))):
        settings = dataclasses.replace(SETTINGS, alpha=alpha)
        attack = build_attack("pgd", model, ThreatModel("linf", epsilon), settings)
        for x in (X, X.astype(np.float16), (X * 255).astype(np.uint8), jnp.asarray(X)):
            size = np.abs(np.asarray(attack(KEY, WEIGHTS, x, Y.astype(np.int8)).x_adv)).max()
            assert size > 0
    assert len(looks) == once
    more = dataclasses.replace(SETTINGS, steps=3)
    build_attack("pgd", model, ThreatModel("linf", 0.1), more)(KEY, WEIGHTS, X, Y)
    assert len(looks) > once


def test_what_it_finds_is_what_the_attack_finds_by_itself_under_jit_vmap_and_grad():
    model, _ = counted()
    threat, y = ThreatModel("linf", 0.1), jnp.asarray(Y)
    attack = build_attack("pgd", model, threat, SETTINGS)
    own = pgd(model, threat, SETTINGS)
    expected = jax.jit(own)(KEY, WEIGHTS, jnp.asarray(X), y).x_adv
    np.testing.assert_allclose(attack(KEY, WEIGHTS, X, Y).x_adv, expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(attack)(KEY, WEIGHTS, X, Y).x_adv, expected, atol=1e-6)

    def largest(epsilon):
        grown = build_attack("pgd", model, ThreatModel("linf", epsilon), SETTINGS)
        return jnp.max(jnp.abs(grown(KEY, WEIGHTS, X, Y).x_adv - X), axis=1)

    epsilons = jnp.array([0.01, 0.02])
    sizes = jax.jit(jax.vmap(largest))(epsilons)
    np.testing.assert_allclose(sizes.max(1), epsilons, atol=1e-6)
    slope = jax.grad(lambda w: jnp.sum(attack(KEY, w, X, Y).loss))(jnp.asarray(WEIGHTS))
    assert np.isfinite(slope).all()


def test_a_model_without_params_is_traced_anew_as_what_it_closes_over_may_change():
    weights = [jnp.zeros((6, 3))]
    attack = build_attack("pgd", lambda _, x: x @ weights[0], ThreatModel("linf", 0.1), SETTINGS)
    before = attack(KEY, None, X, Y).loss
    weights[0] = jnp.asarray(WEIGHTS)
    assert not np.allclose(attack(KEY, None, X, Y).loss, before)


def make_plain():
    return counted()[0]


def make_mixture():
    route = counted()[0]
    return from_functions(route, route, num_experts=2)


def make_randomized():
    return Randomized(lambda params, x, key: x @ params)


@pytest.mark.parametrize("make", [make_plain, make_mixture])
def test_a_program_goes_with_its_model_and_holds_no_params(make):
    model = make()
    params = jnp.asarray(WEIGHTS)
    if make is make_mixture:
        params = {"router": params[:, :2], "experts": jnp.stack([params, params])}
    attack = build_attack("fgsm", model, ThreatModel("linf", 0.1), SETTINGS)
    attack(KEY, params, X, Y)
    held = weakref.ref(model.route if make is make_mixture else model)
    leaf = weakref.ref(jax.tree.leaves(params)[0])
    del params
    gc.collect()
    assert leaf() is None
    del attack, model
    gc.collect()
    assert held() is None


def test_no_more_programs_are_kept_than_the_last_few(monkeypatch):
    monkeypatch.setattr(compiled, "MOST_PROGRAMS", 2)
    monkeypatch.setattr(compiled, "_PROGRAMS", type(compiled._PROGRAMS)())
    models = [make_randomized() for _ in range(4)]
    for model in models:
        assert compiled.program(pgd, model) is compiled.program(pgd, model)
    assert len(compiled._PROGRAMS) == 2
    assert compiled.program(pgd, models[3]) is not compiled.program(pgd, models[2])


def test_threads_that_attack_models_of_their_own_leave_one_another_alone():
    errors = []

    def look_for_many():
        try:
            for _ in range(200):
                model, _ = counted()
                compiled.program(compiled.run_here, model)
        except Exception as error:
            errors.append(error)

    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that no thread has a look to itself
    try:
        threads = [threading.Thread(target=look_for_many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(often)
    assert not errors
