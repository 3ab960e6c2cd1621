"""Tests of counts against probabilities that are added up by hand."""

import math

import numpy as np
import pytest

from jaxmoe.evaluation.measures.significance import (
    estimate_difference,
    estimate_mean,
    exceeds,
    interval,
    outweighs,
)


def tail(count, n, share):
    return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count, n + 1))


@pytest.mark.parametrize("n", [1, 5, 40, 300])
def test_a_count_exceeds_a_share_where_its_tail_is_short(n):
    for count in range(n + 1):
        enough = count > 1 or n == 1
        assert exceeds(count, n, 0.01) == (enough and tail(count, n, 0.01) < 0.05)
    assert not exceeds(0.9, n, 0.01)


def test_changes_one_way_outweigh_few_the_other_way():
    assert not outweighs(0, 0)
    assert not outweighs(4, 0)
    assert outweighs(5, 0)
    assert not outweighs(12, 9)


def test_an_interval_holds_what_it_should():
    low, high = interval(22, 40)
    assert tail(22, 40, low) == pytest.approx(0.025, abs=1e-6)
    assert 1 - tail(23, 40, high) == pytest.approx(0.025, abs=1e-6)
    assert interval(0, 10)[0] == 0
    assert interval(10, 10)[1] == 1
    np.testing.assert_allclose(interval(0, 10)[1], 1 - 0.025**0.1)


def test_a_mean_of_hits_has_the_exact_interval_and_one_of_shares_the_normal_one():
    hits = np.repeat([0.0, 1.0], [18, 22])
    assert estimate_mean(hits) == (0.55, *interval(22, 40))
    shares = np.array([0.2, 0.4, 0.9])
    padded = np.array([*shares, 0, 0, 1, 1])
    half = 1.96 * padded.std() / 7**0.5
    expected = (0.5, padded.mean() - half, padded.mean() + half)
    np.testing.assert_allclose(estimate_mean(shares), expected)


def test_pairs_that_never_differ_leave_room_for_some_that_would():
    value, low, high = estimate_difference(np.ones(30), np.ones(30))
    assert value == 0
    assert -0.1 < low < 0 < high < 0.1
