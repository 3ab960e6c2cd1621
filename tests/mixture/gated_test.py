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
    from_functions,
    from_gate,
    run_parts,
    run_routed,
    single_expert,
    with_head,
    with_route,
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
        alone = jax.jit(single_expert(mixture, i))(params, X)
        np.testing.assert_allclose(alone, logits, rtol=1e-5)
    logits = np.asarray(jax.jit(mixture.route)(params, X))
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

    @jax.jit
    def found(params):
        isolated = combine_experts(mixture, params, X, mixture.route(params, X), jnp.stack(outputs))
        others = (other(mixture, params, X) for other in (apply_dense, apply_soft))
        return mixture.apply(params, X), *others, isolated

    for each in found(params):
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-5)
    assert set(params) == {"router", "experts"} | ({"head"} if conv else set())


def test_the_gate_has_a_gradient_in_the_pixels_through_the_features(gate):
    mixture, params = build(gate, conv=False)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(mixture.route(params, x)[..., 0])))(X)
    assert np.all(np.abs(gradient).sum((1, 2, 3)) > 0)


def test_a_gate_reads_every_experts_features(gate):
    mixture, params = build(gate, conv=False)
    route = jax.jit(mixture.route)
    before = route(params, X)
    for i in range(EXPERTS):
        kernel = params["experts"]["params"]["features"]["kernel"]
        changed = jax.tree.map(lambda p: p, params)
        changed["experts"]["params"]["features"]["kernel"] = kernel.at[i].multiply(-1.0)
        assert not np.allclose(route(changed, X), before, atol=1e-6)


def test_ensembles_are_the_mean_and_the_maximum_of_the_experts():
    mixture, params = build("simple", conv=False)
    outputs = np.asarray(mixture.experts(params, X))
    np.testing.assert_allclose(ensemble(mixture, "mean")(params, X), outputs.mean(0), rtol=1e-5)
    np.testing.assert_array_equal(ensemble(mixture, "max")(params, X), outputs.max(0))
    with pytest.raises(ValueError, match=r"ensemble: 'median' is not one of mean, max"):
        ensemble(mixture, "median")
    with pytest.raises(ValueError, match=r"expert: 3 is not from 0 to 2"):
        single_expert(mixture, 3)


def loops_of(function, mixture, params):
    """How many loops over experts a function of a mixture takes, and what it returns."""
    jaxpr = jax.make_jaxpr(function, static_argnums=0)(mixture, params, X)
    return str(jaxpr).count("scan["), jax.jit(function, static_argnums=0)(mixture, params, X)


def apart(mixture, params, x):
    return mixture.apply(params, x), mixture.route(params, x), mixture.experts(params, x)


@pytest.mark.parametrize("conv", [False, True])
def test_all_parts_of_a_gated_mixture_take_one_run_of_its_experts(gate, conv):
    mixture, params = build(gate, conv)
    separate, expected = loops_of(apart, mixture, params)
    loops, found = loops_of(run_parts, mixture, params)
    assert (separate, loops) == (3, 1)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    loops, found = loops_of(run_routed, mixture, params)
    assert loops == 1
    for a, b in zip(found, expected[:2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_dense_mixture_runs_its_experts_once_too():
    mixture = from_functions(
        lambda w, x: x.mean(axis=(1, 2)) @ w,
        lambda w, x: x.mean(axis=(1, 2)) @ w,
        num_experts=EXPERTS,
        top_k=EXPERTS,
    )
    draw = np.random.default_rng(1).normal
    params = {
        "router": jnp.asarray(draw(size=(3, EXPERTS)), jnp.float32),
        "experts": jnp.asarray(draw(size=(EXPERTS, 3, CLASSES)), jnp.float32),
    }
    separate, expected = loops_of(apart, mixture, params)
    loops, found = loops_of(run_parts, mixture, params)
    assert (separate, loops) == (2, 1)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m._replace(route=lambda p, x: -m.route(p, x)),
        lambda m: m._replace(experts=lambda p, x: -m.experts(p, x)),
        lambda m: m._replace(apply=lambda p, x: -m.apply(p, x)),
        lambda m: with_head(m, lambda p, x, output: 2 * output),
        lambda m: with_route(m, lambda p, x: -m.route(p, x)),
        lambda m: m._replace(head=lambda p, x, output: 3 * output),
    ],
    ids=["route", "experts", "apply", "with_head", "with_route", "head"],
)
def test_functions_that_were_replaced_are_the_ones_that_run(change):
    mixture, params = build("simple", conv=False)
    mixture = change(mixture)
    for a, b in zip(run_parts(mixture, params, X), apart(mixture, params, X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(run_routed(mixture, params, X), apart(mixture, params, X), strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
