"""Schedules at the points that matter, and one program for all of them."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from jaxmoe.config import Experiment
from jaxmoe.parallel import make_parallel
from jaxmoe.runs.run import loop_options
from jaxmoe.threat import ThreatModel
from jaxmoe.training import (
    RecipeOptions,
    Stage,
    epsilon_schedule,
    fit,
    learning_rate_schedule,
)
from jaxmoe.training.recipes import at_m, tlat
from jaxmoe.training.schedules import Numbers, numbers_of, scheduled
from tests.training.conftest import OneBatch


def test_one_cycle_rises_to_its_peak_and_falls_to_zero():
    rate = learning_rate_schedule("one_cycle", 0.1, 100, 0.2)
    values = np.array([float(rate(step)) for step in range(101)])
    assert values.argmax() == 20
    assert values.max() == pytest.approx(0.1)
    assert values[0] < 0.01
    assert np.all(np.diff(values[:21]) > 0)
    assert np.all(np.diff(values[20:]) <= 0)
    assert values[100] == pytest.approx(0, abs=1e-6)


def test_constant_is_constant():
    rate = learning_rate_schedule("constant", 0.1, 100, 0.2)
    assert float(rate(0)) == float(rate(99)) == pytest.approx(0.1)


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_epsilon_is_never_zero_nor_above_its_end(warmup):
    """L_Lip is 0/0 at ε = 0."""
    epsilon = epsilon_schedule(0.03, 10, warmup)
    values = np.array([float(epsilon(step)) for step in range(10)])
    assert np.all(values > 0)
    assert np.all(np.diff(values) >= 0)
    assert values[-1] == pytest.approx(0.03)
    assert values.max() <= 0.03 + 1e-9


def test_the_numbers_of_a_stage_are_those_of_its_schedules():
    options = dataclasses.replace(loop_options(Experiment()), learning_rate=0.1, warmup=0.2)
    stage = Stage("stage", at_m, 2, epsilon_warmup=0.5)
    numbers = numbers_of(stage, 10, options, epsilon=0.03, spread_left=0.5)
    rate = learning_rate_schedule(options.schedule, 0.1, 10, 0.2)
    epsilon = epsilon_schedule(0.03, 10, 0.5)
    with jax.numpy_dtype_promotion("standard"):  # optax adds integers to floats
        for step in range(10):
            now = Numbers(*numbers[step])
            assert now.learning_rate == pytest.approx(float(rate(step)), rel=1e-6)
            assert now.epsilon == pytest.approx(float(epsilon(step)), rel=1e-6)
            assert now.spread == pytest.approx(1 - 0.05 * step)
            assert now.lam_share == pytest.approx(min(0.2 + 0.16 * step, 1))
    own = dataclasses.replace(stage, learning_rate=0.2, epsilon_warmup=0.0)
    rates, *others = numbers_of(own, 10, options, epsilon=0.03, spread_left=1.0).T
    assert rates.max() == pytest.approx(0.2)
    np.testing.assert_allclose(np.transpose(others), [[0.03, 1, 1]] * 10, rtol=1e-6)


def test_each_number_comes_where_it_belongs():
    found = []

    def make_step(**schedules):
        found.append({name: s if s is None else float(s(0)) for name, s in schedules.items()})
        return lambda *given: given

    for lam_rises in (True, False):
        given = "key", np.float32([1, 2, 3, 4])
        step = scheduled(make_step, lam_rises=lam_rises)
        assert step("state", "batch", given) == ("state", "batch", "key")
    right = {"learning_rate": 1.0, "epsilon": 2.0, "spread": 3.0, "lam_share": 4.0}
    assert found == [right, right | {"lam_share": None}]
    assert Numbers._fields == tuple(right)


def test_stages_of_any_length_rate_and_epsilon_have_one_program(mixture, params, monkeypatch):
    parallel, texts, ends = make_parallel(jax.devices()[:1]), [], []
    map_step = parallel.map_step

    def recorded(step, like):
        program, compiled = map_step(step, like), []

        def run(*args):
            if not compiled:
                lowered = program.lower(*args)
                texts.append(lowered.as_text())
                compiled.append(lowered.compile())
            return compiled[0](*args)

        return run

    monkeypatch.setattr(parallel, "map_step", recorded)
    options = dataclasses.replace(loop_options(Experiment()), learning_rate=1e-2)
    usual = {"epochs": 2, "rate": 1e-2, "epsilon": 0.1, "warmup": 0.6, "spread_left": 1.0}
    other_size = {"epochs": 3, "rate": 1e-3, "epsilon": 0.02}
    for change in ({}, other_size, {"spread_left": 0.1, "warmup": 0.9}):
        epochs, rate, epsilon, warmup, spread_left = (usual | change).values()
        end = fit(
            mixture,
            params,
            (Stage("stage", tlat, epochs, epsilon_warmup=warmup),),
            OneBatch(),
            2,
            threat=ThreatModel("linf", epsilon),
            options=dataclasses.replace(options, learning_rate=rate),
            recipe_options=RecipeOptions(
                balance_weight=0.5, router_noise=0.5, lam=0.1, spread_left=spread_left
            ),
            parallel=parallel,
        )
        ends.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(end)]))
    assert len(texts) == 3
    assert len(set(texts)) == 1
    for one, other in itertools.combinations(ends, 2):
        assert np.abs(one - other).max() > 1e-6
