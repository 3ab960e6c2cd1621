"""Schedules at the points that matter."""

import numpy as np
import pytest

from jaxmoe.training import epsilon_schedule, learning_rate_schedule


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
