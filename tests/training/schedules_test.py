"""Schedules at the points that matter, and one program for all of them."""

import dataclasses

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
from jaxmoe.training.recipes import at_m
from jaxmoe.training.schedules import numbers_of
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
            now = numbers.at(step)
            assert now.learning_rate == pytest.approx(float(rate(step)), rel=1e-6)
            assert now.epsilon == pytest.approx(float(epsilon(step)), rel=1e-6)
            assert now.spread == pytest.approx(1 - 0.05 * step)
            assert now.lam_share == pytest.approx(min(0.2 + 0.16 * step, 1))
    assert numbers.lam_share[-1] == 1
    own = dataclasses.replace(stage, learning_rate=0.2, epsilon_warmup=0.0)
    numbers = numbers_of(own, 10, options, epsilon=0.03, spread_left=1.0)
    assert numbers.learning_rate.max() == pytest.approx(0.2)
    assert numbers.lam_share is None


def test_stages_of_any_length_rate_and_epsilon_have_one_program(mixture, params, monkeypatch):
    parallel, texts = make_parallel(jax.devices()[:1]), []
    map_step = parallel.map_step

    def recorded(step, like):
        program = map_step(step, like)

        def run(*args):
            texts.append(program.lower(*args).as_text())
            return program(*args)

        return run

    monkeypatch.setattr(parallel, "map_step", recorded)
    options = loop_options(Experiment())
    for epochs, rate, epsilon in ((1, 1e-3, 0.1), (2, 1e-2, 0.02)):
        fit(
            mixture,
            params,
            (Stage("stage", at_m, epochs, epsilon_warmup=0.5),),
            OneBatch(),
            1,
            threat=ThreatModel("linf", epsilon),
            options=dataclasses.replace(options, learning_rate=rate),
            recipe_options=RecipeOptions(spread_left=1 / epochs),
            parallel=parallel,
        )
    assert len(texts) == 3
    assert len(set(texts)) == 1
