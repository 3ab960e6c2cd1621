"""Curves of mixtures of modules: what is certified is what is predicted, and the curve is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.evaluation.certify.certification import (
    _rounded_up,
    certifiable,
    lipschitz_curve,
    smoothing_curve,
)
from jaxmoe.evaluation.certify.lipschitz_bounds import logit_difference_bounds
from jaxmoe.evaluation.certify.smoothing import Smoothing
from jaxmoe.evaluation.engine.guards import NonFiniteError
from jaxmoe.mixture import dual_mixture, from_modules, with_dual_weight
from jaxmoe.models import LinearRouter, PooledRouter

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

SHAPE, EXPERTS, CLASSES, N = (4, 4, 3), 3, 4, 24
ROUTER = LinearRouter(EXPERTS)
# A pooled router is a linear classifier too: its constants are exact.
EXPERT = PooledRouter(CLASSES, grid=(2, 2, 2))


def mixture_of(top_k):
    return from_modules(ROUTER, EXPERT, num_experts=EXPERTS, top_k=top_k)


def bounds_of(params, norm="l2"):
    experts = [
        logit_difference_bounds(EXPERT, jax.tree.map(lambda p, i=i: p[i], params), SHAPE, norm)
        for params in [params["experts"]]
        for i in range(EXPERTS)
    ]
    return logit_difference_bounds(ROUTER, params["router"], SHAPE, norm), np.stack(experts)


@pytest.fixture(scope="module")
def params():
    fresh = mixture_of(1).init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    return jax.tree.map(lambda leaf: 3 * leaf, fresh)


@pytest.fixture(scope="module")
def batches(params):
    clips = np.random.default_rng(0).random((N, *SHAPE), np.float32)
    label = np.asarray(jnp.argmax(mixture_of(1).apply(params, jnp.asarray(clips)), -1))
    valid = np.arange(N) < N - 2
    label = np.where(np.arange(N) < 4, (label + 1) % CLASSES, label).astype(np.int32)
    index = np.arange(N, dtype=np.int32)
    return [{"clip": clips, "label": label, "index": index, "valid": valid}]


def test_the_curve_counts_each_valid_example_at_its_own_radius(params, batches):
    subject = certifiable(mixture_of(1), *bounds_of(params))
    clip = jnp.asarray(batches[0]["clip"])
    certificate = subject.certify(params, clip)
    right = np.asarray(certificate.prediction == batches[0]["label"]) & batches[0]["valid"]
    radii = [0.0, *np.quantile(np.asarray(certificate.radius), [0.3, 0.6]), 100.0]
    curve = lipschitz_curve(subject, params, batches, radii, "l2")
    assert curve.n == N - 2
    expected = [np.sum(right & ((certificate.radius > r) | (r == 0))) / (N - 2) for r in radii]
    np.testing.assert_allclose(curve.certified_accuracy, expected)
    assert expected[0] == (N - 6) / (N - 2)
    assert 0 < expected[2] < expected[1] < expected[0]
    np.testing.assert_allclose(curve.median_radius, np.median(certificate.radius[right]))


def test_constants_are_rounded_up_and_outputs_that_are_not_finite_stop(params, batches):
    third = np.full((EXPERTS, EXPERTS), 1 / 3) * (1 - np.eye(EXPERTS))
    rounded = np.asarray(_rounded_up(third), np.float64)
    assert np.all((rounded > third) == (third > 0))
    assert np.all(rounded <= third * (1 + 1e-6))
    assert _rounded_up(np.asarray([1e60])) == np.inf
    subject = certifiable(mixture_of(1), *bounds_of(params))
    broken = {**params, "router": jax.tree.map(lambda leaf: leaf * jnp.nan, params["router"])}
    with pytest.raises(NonFiniteError, match="an output of the hard top-1 mixture"):
        lipschitz_curve(subject, broken, batches, [0.0], "l2")


def test_what_is_certified_is_what_is_attacked(params, batches):
    clip = jnp.asarray(batches[0]["clip"])
    standard = mixture_of(1)
    dual = dual_mixture(standard, mixture_of(1), 0.8)
    dual_params = with_dual_weight({**params, "standard": jax.tree.map(jnp.negative, params)}, 0.8)
    cases = [
        (certifiable(mixture_of(1), *bounds_of(params)), params),
        (certifiable(mixture_of(EXPERTS), *bounds_of(params)), params),
        (certifiable(dual, *bounds_of(params), standard), dual_params),
    ]
    for subject, own in cases:
        apply = getattr(subject.model, "apply", subject.model)
        predicted = jnp.argmax(apply(own, clip), axis=-1)
        certificate = subject.certify(own, clip)
        np.testing.assert_array_equal(certificate.prediction, predicted)
        assert np.any(certificate.radius > 0)
    words = {subject.words for subject, _ in cases}
    assert len(words) == 3


def test_a_partly_sparse_mixture_has_no_certificate(params):
    with pytest.raises(ValueError, match=r"mixture\.top_k: 2 has no certificate; expected 1 or"):
        certifiable(mixture_of(2), *bounds_of(params))


@pytest.mark.nightly
def test_smoothing_takes_any_mixture_and_nearly_agrees_without_noise(params, batches):
    smoothing = Smoothing(sigma=1e-4, selection=5, samples=40)
    curve = smoothing_curve(mixture_of(2), params, batches, [0.0, 1e-3], smoothing)
    label = np.asarray(jnp.argmax(mixture_of(2).apply(params, jnp.asarray(batches[0]["clip"])), -1))
    right = (label == batches[0]["label"])[batches[0]["valid"]]
    np.testing.assert_allclose(curve.certified_accuracy, [np.mean(right), 0.0])
    assert curve.abstained == 0
    halves = [
        {name: value[part] for name, value in batches[0].items()}
        for part in (slice(0, 12), slice(12, N))
    ]
    noisy = smoothing._replace(sigma=0.3)
    together = smoothing_curve(mixture_of(2), params, batches, [0.0, 0.1], noisy)
    apart = smoothing_curve(mixture_of(2), params, halves, [0.0, 0.1], noisy)
    np.testing.assert_array_equal(together.examples, apart.examples)
    rest = {"examples": None, "model_checks": ()}
    assert together._replace(**rest) == apart._replace(**rest)
