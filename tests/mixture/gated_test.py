"""Gated mixtures against plain sums over their experts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.mixture import (
    apply_dense,
    apply_soft,
    combine_experts,
    ensemble,
    from_gate,
    single_expert,
)
from jaxmoe.models import ClasswiseGate, Conv, SimpleGate

EXPERTS, CLASSES = 3, 4
X = jnp.asarray(np.random.default_rng(0).random((2, 6, 8, 3)), jnp.float32)


class Expert(nn.Module):
    """A logit for each pixel, and features at half the resolution."""

    @nn.compact
    def __call__(self, x, *, with_features=False):
        features = jnp.tanh(Conv(5, (3, 3), 2, name="features")(x))
        logits = Conv(CLASSES, (3, 3), name="logits")(x)
        return (logits, features) if with_features else logits


def build(gate, conv):
    gates = {"simple": SimpleGate(EXPERTS, 7), "classwise": ClasswiseGate(EXPERTS, CLASSES, 7)}
    head = Conv(CLASSES, (3, 3)) if conv else None
    mixture = from_gate(gates[gate], Expert(), num_experts=EXPERTS, head=head)
    return mixture, mixture.init(jax.random.key(0), X)


@pytest.fixture(scope="module", params=["simple", "classwise"])
def gate(request):
    return request.param


@pytest.mark.parametrize("conv", [False, True])
def test_a_gated_mixture_is_the_weighted_sum_of_its_experts(gate, conv):
    mixture, params = build(gate, conv)
    features, outputs = [], []
    for i in range(EXPERTS):
        own = jax.tree.map(lambda p, i=i: p[i], params["experts"])
        logits, found = Expert().apply(own, X, with_features=True)
        outputs.append(np.asarray(logits))
        features.append(found)
        np.testing.assert_allclose(single_expert(mixture, i)(params, X), logits, rtol=1e-5)
    logits = np.asarray(mixture.route(params, X))
    assert logits.shape == ((2, EXPERTS) if gate == "simple" else (2, CLASSES, EXPERTS))
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.zeros((2, 6, 8, CLASSES))
    for b in range(2):
        for k in range(CLASSES):
            for i in range(EXPERTS):
                weight = weights[b, i] if gate == "simple" else weights[b, k, i]
                expected[b, :, :, k] += weight * outputs[i][b, :, :, k]
    if conv:
        expected = Conv(CLASSES, (3, 3)).apply(params["head"], jnp.asarray(expected, jnp.float32))
    np.testing.assert_allclose(mixture.apply(params, X), expected, rtol=1e-4, atol=1e-5)
    for other in (apply_dense, apply_soft):
        np.testing.assert_allclose(other(mixture, params, X), expected, rtol=1e-4, atol=1e-5)
    isolated = combine_experts(mixture, params, X, mixture.route(params, X), jnp.stack(outputs))
    np.testing.assert_allclose(isolated, expected, rtol=1e-4, atol=1e-5)
    assert set(params) == {"router", "experts"} | ({"head"} if conv else set())


def test_the_gate_has_a_gradient_in_the_pixels_through_the_features(gate):
    mixture, params = build(gate, conv=False)
    gradient = jax.grad(lambda x: jnp.sum(mixture.route(params, x)[..., 0]))(X)
    assert np.all(np.abs(gradient).sum((1, 2, 3)) > 0)


def test_a_gate_reads_every_experts_features(gate):
    mixture, params = build(gate, conv=False)
    before = mixture.route(params, X)
    for i in range(EXPERTS):
        kernel = params["experts"]["params"]["features"]["kernel"]
        changed = jax.tree.map(lambda p: p, params)
        changed["experts"]["params"]["features"]["kernel"] = kernel.at[i].multiply(-1.0)
        assert not np.allclose(mixture.route(changed, X), before, atol=1e-6)


def test_ensembles_are_the_mean_and_the_maximum_of_the_experts():
    mixture, params = build("simple", conv=False)
    outputs = np.asarray(mixture.experts(params, X))
    np.testing.assert_allclose(ensemble(mixture, "mean")(params, X), outputs.mean(0), rtol=1e-5)
    np.testing.assert_array_equal(ensemble(mixture, "max")(params, X), outputs.max(0))
    with pytest.raises(ValueError, match=r"ensemble: 'median' is not one of mean, max"):
        ensemble(mixture, "median")
    with pytest.raises(ValueError, match=r"expert: 3 is not from 0 to 2"):
        single_expert(mixture, 3)
