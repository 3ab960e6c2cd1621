"""Randomised smoothing against closed forms: a linear classifier's smoothed radius is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmoe.evaluation.certify.smoothing import (
    ABSTAINED,
    Smoothing,
    check_smoothing,
    count_votes,
    lower_confidence_bound,
    smoothed_radius,
)

WEIGHTS = np.array([2.0, -1.0, 0.5])


def linear(params, x):
    """Two classes, told apart by the sign of w·x."""
    score = x @ params
    return jnp.stack([-score, score], axis=-1)


def certify(x, smoothing, seed=0):
    params = jnp.asarray(WEIGHTS, jnp.float32)
    keys = jax.random.split(jax.random.key(seed))
    votes = [
        np.asarray(jax.jit(count_votes(linear, smoothing, count))(key, params, jnp.asarray(x)))
        for key, count in zip(keys, (smoothing.selection, smoothing.samples), strict=True)
    ]
    return (*smoothed_radius(*votes, smoothing), votes[1])


def test_a_linear_classifiers_radius_is_its_distance_from_the_boundary():
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    smoothing = Smoothing(sigma=0.5, samples=5_000, chunk=64)
    prediction, radius, votes = certify(x, smoothing)
    assert np.all(votes.sum(-1) == 5_000)
    # Smoothing a half-space leaves it as it is.
    distance = np.abs(x @ WEIGHTS) / np.linalg.norm(WEIGHTS)
    certain = prediction != ABSTAINED
    assert np.mean(certain) > 0.8
    np.testing.assert_array_equal(prediction[certain], (x @ WEIGHTS > 0)[certain])
    assert np.all(radius[certain] <= distance[certain])
    # Where nearly all votes agree, 5,000 of them bound no more than Φ⁻¹(1 − 0.0014).
    near = certain & (distance < 1.0)
    assert np.all(radius[near] > 0.6 * distance[near] - 0.05)
    assert np.all(radius[~certain] == 0)
    assert np.all(distance[~certain] < 0.1)


def test_votes_do_not_depend_on_the_batch_and_every_sample_votes_once():
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    params = jnp.asarray(WEIGHTS, jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4)
    votes = count_votes(linear, Smoothing(chunk=50), 150)
    together = votes(keys, params, jnp.asarray(x))
    alone = votes(keys[2:3], params, jnp.asarray(x[2:3]))
    np.testing.assert_array_equal(together[2:3], alone)
    uneven = count_votes(linear, Smoothing(chunk=40), 150)(keys, params, jnp.asarray(x))
    assert np.all(np.sum(uneven, axis=-1) == 150)


def test_a_classifier_of_nans_gets_no_vote():
    votes = count_votes(lambda _, x: x[:, :2] * jnp.nan, Smoothing(chunk=10), 20)
    assert not np.any(votes(jax.random.key(0), None, jnp.ones((2, 3))))


@pytest.mark.parametrize("samples", [1, 10, 1000])
def test_the_bound_is_clopper_and_pearsons(samples):
    for hits in {0, 1, samples // 2, samples}:
        exact = stats.binomtest(hits, samples, alternative="greater").proportion_ci(0.99, "exact")
        found = lower_confidence_bound(np.array(hits), samples, 0.01)
        np.testing.assert_allclose(found, exact.low, atol=1e-12)


def test_certificates_hold_as_often_as_they_say():
    """The bound is above a known probability in about `failure` of the cases."""
    failure, samples, probability = 0.05, 200, 0.9
    hits = np.random.default_rng(0).binomial(samples, probability, 20_000)
    wrong = np.mean(lower_confidence_bound(hits, samples, failure) > probability)
    assert 0.02 < wrong <= failure + 0.005


def test_what_is_no_majority_is_no_prediction():
    smoothing = Smoothing(samples=100)
    even, clear = np.array([[50, 50]]), np.array([[1, 99]])
    prediction, radius = smoothed_radius(even, even, smoothing)
    assert prediction.tolist() == [ABSTAINED]
    assert radius.tolist() == [0.0]
    prediction, radius = smoothed_radius(clear, clear, smoothing)
    assert prediction.tolist() == [1]
    expected = 0.25 * stats.norm.ppf(stats.beta.ppf(1e-3, 99, 2))
    np.testing.assert_allclose(radius, [expected])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sigma": 0.0}, "smoothing.sigma: 0.0"),
        ({"samples": 0}, "smoothing.samples: 0"),
        ({"failure": 1.0}, "smoothing.failure: 1.0"),
    ],
)
def test_impossible_numbers_are_one_line(fields, message):
    with pytest.raises(ValueError, match=message):
        check_smoothing(Smoothing(**fields))
