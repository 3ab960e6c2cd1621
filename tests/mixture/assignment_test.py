"""Even assignment: nobody is over the limit, and who would lose most goes first."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.mixture import assign_evenly

ASSIGN = jax.jit(assign_evenly)


def plainly(scores):
    """The same rule in loops."""
    batch, experts = scores.shape
    limit = -(-batch // experts)
    ordered = np.sort(scores, axis=1)[:, ::-1]
    cost = ordered[:, 0] - ordered[:, min(1, experts - 1)]
    load, chosen = [0] * experts, [0] * batch
    for example in np.argsort(-cost, kind="stable"):
        room = [i for i in range(experts) if load[i] < limit]
        chosen[example] = max(room, key=lambda i, e=example: scores[e, i])
        load[chosen[example]] += 1
    return chosen


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_a_plain_rewrite(seed):
    scores = np.random.default_rng(seed).normal(size=(12, 4)).astype(np.float32)
    chosen = ASSIGN(scores)
    assert np.asarray(chosen).tolist() == plainly(scores)
    assert np.bincount(chosen, minlength=4).tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize(("batch", "experts"), [(7, 3), (2, 4), (5, 1)])
def test_loads_are_even_where_they_do_not_divide(batch, experts):
    scores = np.random.default_rng(0).normal(size=(batch, experts)).astype(np.float32)
    loads = np.bincount(ASSIGN(scores), minlength=experts)
    assert loads.max() <= -(-batch // experts)
    assert loads.sum() == batch


def test_all_that_want_one_expert_are_spread_by_what_it_costs_them():
    # All prefer expert 0; the last two lose the most without it.
    scores = np.array([[1.0, 0.9], [1.0, 0.8], [1.0, 0.1], [1.0, 0.0]], np.float32)
    assert np.asarray(ASSIGN(scores)).tolist() == [1, 1, 0, 0]


def test_a_score_of_nan_is_the_worst():
    scores = np.array([[np.nan, 0.0], [0.0, np.nan]], np.float32)
    assert np.asarray(ASSIGN(scores)).tolist() == [1, 0]
