"""Certificates against attacks: over thousands of random networks none is ever beaten."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import perturb, steepest_step
from jaxmoe.evaluation.certify.certificates import (
    Certificate,
    certified_accuracy,
    dual_radius,
    logit_radius,
    mixture_radius,
    top_1_radius,
)
from jaxmoe.threat import ThreatModel
from tests.night import at_night

FEATURES, HIDDEN, EXPERTS, CLASSES = 5, 6, 3, 4
NETWORKS = 1000


def differences(rows, norm):
    """Dual norms of differences of the columns of `rows [..., I, K]`."""
    difference = rows[..., :, :, None] - rows[..., :, None, :]
    return jnp.linalg.norm(difference, 1 if norm == "linf" else 2, axis=-3)


def induced(kernel, norm):
    if norm == "linf":
        return jnp.max(jnp.sum(jnp.abs(kernel), axis=-2), axis=-1)
    return jnp.linalg.svd(kernel, compute_uv=False)[..., 0]


def network(key, depth):
    """A router and experts, linear or with a hidden layer, drawn at many scales."""
    keys = jax.random.split(key, 5)
    scale = jnp.exp(jax.random.uniform(keys[0], minval=-1.0, maxval=2.0))
    params = {
        "router": jax.random.normal(keys[1], (FEATURES, EXPERTS)) * scale,
        "head": jax.random.normal(keys[2], (EXPERTS, HIDDEN if depth else FEATURES, CLASSES)),
    }
    if depth:
        params["hidden"] = jax.random.normal(keys[3], (EXPERTS, FEATURES, HIDDEN))
    return params


def route(params, x):
    return x @ params["router"]


def experts(params, x):
    x = jnp.broadcast_to(x, (EXPERTS, *x.shape))
    if "hidden" in params:
        x = jax.nn.relu(jnp.einsum("mbi,mih->mbh", x, params["hidden"]))
    return jnp.einsum("mbh,mhk->mbk", x, params["head"])


def bounds(params, norm):
    expert = differences(params["head"], norm)
    if "hidden" in params:
        expert = expert * induced(params["hidden"], norm)[:, None, None]
    return differences(params["router"], norm), expert


def mixed(params, x):
    weights = jax.nn.softmax(route(params, x))
    return jnp.einsum("bm,mbk->bk", weights, jax.nn.softmax(experts(params, x)))


def standard(x):
    """A network that is as rough as it likes."""
    return jax.nn.softmax(1e3 * jnp.sin(1e3 * x[:, :CLASSES]))


def dual(params, x):
    return 0.8 * mixed(params, x) + 0.2 * standard(x)


def top_1(params, x):
    chosen = jnp.argmax(route(params, x), axis=-1)
    return jnp.take_along_axis(experts(params, x), chosen[None, :, None], axis=0)[0]


MODELS = {
    "mixture": (mixed, lambda x, *parts: mixture_radius(*parts)),
    "dual": (dual, lambda x, *parts: dual_radius(0.8, standard(x), *parts)),
    "top-1": (top_1, lambda x, *parts: top_1_radius(*parts)),
}


def broken(model, depth, norm, factor, key):
    """Whether attacks at `factor` times the certified radius change a network's prediction."""
    apply, certify = MODELS[model]
    params_key, x_key, attack_key = jax.random.split(key, 3)
    params = network(params_key, depth)
    x = 3 * jax.random.normal(x_key, (1, FEATURES))
    certificate = certify(x, route(params, x), experts(params, x), *bounds(params, norm))
    radius = factor * jnp.minimum(certificate.radius[0], 100.0)
    threat = ThreatModel(norm, radius, bounds=(-1e4, 1e4))
    prediction = certificate.prediction

    def objective(kind, x_adv):
        """Towards the next class, or, as the prediction of top-1 may jump, the next expert."""
        if kind == "router":
            logits, kept = route(params, x_adv), jnp.argmax(route(params, x), axis=-1)
        else:
            logits, kept = apply(params, x_adv), prediction
        own = jnp.take_along_axis(logits, kept[:, None], axis=-1)[:, 0]
        others = jnp.where(jnp.arange(logits.shape[-1])[None] == kept[:, None], -jnp.inf, logits)
        return jnp.max(others, axis=-1) - own

    changed = apply(params, x).argmax(-1) != prediction
    for kind in ("class", "router"):
        for random_start in (False, True):
            result = perturb(
                attack_key,
                x,
                functools.partial(objective, kind),
                threat,
                steepest_step(norm, radius / 4),
                steps=12,
                random_start=random_start,
            )
            changed |= apply(params, result.x_adv).argmax(-1) != prediction
    return changed[0], certificate.radius[0]


BY_DAY = (("mixture", 1, "l2"), ("dual", 0, "linf"))
NETWORKS_OF = itertools.product(MODELS, ((0, "linf"), (1, "linf"), (1, "l2")))
CASES = [(model, *network) for model, network in NETWORKS_OF]


@pytest.mark.parametrize(
    ("model", "depth", "norm"), [case if case in BY_DAY else at_night(*case) for case in CASES]
)
def test_no_attack_succeeds_within_a_certified_radius(model, depth, norm):
    seed = 4 * list(MODELS).index(model) + 2 * depth + (norm == "l2")
    keys = jax.random.split(jax.random.key(seed), NETWORKS)
    run = jax.jit(jax.vmap(functools.partial(broken, model, depth, norm), in_axes=(None, 0)))
    changed, radius = run(0.999, keys)
    assert not np.any(changed)
    assert np.mean(radius > 1e-4) > (0.1 if model == "dual" else 0.9)
    # The attack is one that can break these networks.
    changed, _ = run(100.0, keys)
    assert np.mean(changed[radius > 1e-4]) > 0.5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_networks_certificate_is_exact(norm):
    keys = jax.random.split(jax.random.key(7), NETWORKS)

    def at(factor, key):
        weights = jax.random.normal(key, (FEATURES, CLASSES))
        x = jax.random.normal(jax.random.fold_in(key, 1), (1, FEATURES))
        certificate = logit_radius(x @ weights, differences(weights, norm))
        logits = (x @ weights)[0]
        margins = logits[certificate.prediction[0]] - logits
        lengths = differences(weights, norm)[certificate.prediction[0]]
        nearest = jnp.argmin(jnp.where(lengths > 0, margins / lengths, jnp.inf))
        toward = weights[:, nearest] - weights[:, certificate.prediction[0]]
        step = jnp.sign(toward) if norm == "linf" else toward / jnp.linalg.norm(toward)
        moved = x + factor * certificate.radius[0] * step[None]
        return jnp.argmax(moved @ weights) != certificate.prediction[0]

    run = jax.jit(jax.vmap(at, in_axes=(None, 0)))
    assert not np.any(run(0.99, keys))
    assert np.all(run(1.01, keys))


def test_radii_by_hand():
    router = jnp.asarray([[2.0, 0.0]])
    expert = jnp.asarray([[[3.0, 0.0]], [[0.0, 1.0]]])
    router_bounds = jnp.asarray([[0.0, 4.0], [4.0, 0.0]])
    expert_bounds = jnp.asarray([[[0.0, 5.0], [5.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    certificate = top_1_radius(router, expert, router_bounds, expert_bounds)
    assert certificate.prediction.tolist() == [0]
    np.testing.assert_allclose(certificate.radius, [min(2 / 4, 3 / 5)])

    a = np.exp([2.0, 0.0]) / np.sum(np.exp([2.0, 0.0]))
    p = np.exp(3.0) / (1 + np.exp(3.0))
    q = 1 / (1 + np.exp(1.0))
    margin = a[0] * (2 * p - 1) + a[1] * (2 * q - 1)
    slope = (4 + 4) / 4 + a[0] * 5 / 2 + a[1] * 1 / 2
    mixture = mixture_radius(router, expert, router_bounds, expert_bounds)
    np.testing.assert_allclose(mixture.radius, [margin / slope], rtol=1e-5)
    bounds = (router, expert, router_bounds, expert_bounds)
    other = jnp.asarray([[0.0, 1.0]])
    for alpha in (0.9, 1.0):
        found = dual_radius(alpha, other, *bounds)
        assert found.prediction.tolist() == [0]
        expected = max(0.0, (alpha * margin + alpha - 1) / (alpha * slope))
        np.testing.assert_allclose(found.radius, [expected], rtol=1e-5)
    outvoted = dual_radius(0.5, other, *bounds)
    assert outvoted.radius == 0
    assert outvoted.prediction.tolist() == [1]


def test_certified_accuracy_counts_what_is_right_and_far_enough():
    certificate = Certificate(np.array([0, 1, 1, 0]), np.array([0.5, 0.0, 0.2, 9.0]))
    found = certified_accuracy(certificate, np.array([0, 1, 1, 1]), np.array([0.0, 0.2, 0.4]))
    np.testing.assert_allclose(found, [0.75, 0.25, 0.25])


def test_what_is_not_known_is_not_certified():
    logits, outputs = jnp.asarray([[200.0, 0.0]]), jnp.asarray([[[9.0, 0.0]], [[0.0, 9.0]]])
    apart = jnp.ones((2, 2)) - jnp.eye(2)
    infinite = jnp.stack([apart, jnp.full((2, 2), jnp.inf)])
    # The second expert's weight is 0 in float32: 0 · inf says nothing.
    assert mixture_radius(logits, outputs, apart, infinite).radius == 0
    assert dual_radius(0.9, outputs[0], logits, outputs, apart, infinite).radius == 0
    for bad in (jnp.inf, jnp.nan):
        assert logit_radius(outputs[0], jnp.full((2, 2), bad)).radius == 0
        assert top_1_radius(logits, outputs, jnp.full((2, 2), bad), infinite).radius == 0
        assert mixture_radius(logits, outputs, bad * apart, infinite).radius == 0


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_outputs_that_are_not_finite_have_no_radius(value):
    logits, outputs = jnp.zeros((2, 2)), jnp.asarray([[[9.0, 0.0]] * 2, [[0.0, 9.0]] * 2])
    apart = jnp.ones((2, 2)) - jnp.eye(2)
    bounds = jnp.stack([apart, apart])
    broken = outputs.at[0, 1, 1].set(value)
    found = [top_1_radius(logits, broken, apart, bounds), logit_radius(broken[0], apart)]
    if value != -jnp.inf:  # whose probability is 0
        found += [
            mixture_radius(logits, broken, apart, bounds),
            dual_radius(0.9, outputs[0], logits, broken, apart, bounds),
        ]
    for certificate in found:
        assert np.isfinite(certificate.radius[0])
        assert np.isnan(certificate.radius[1])


def test_networks_that_never_change_hold_everywhere():
    logits, outputs = jnp.zeros((1, 2)), jnp.asarray([[[1.0, 0.0]], [[3.0, 0.0]]])
    still = jnp.zeros((2, 2))
    assert mixture_radius(logits, outputs, still, jnp.stack([still] * 2)).radius == jnp.inf
    assert top_1_radius(logits, outputs, still, jnp.stack([still] * 2)).radius == jnp.inf
    # F_S may outvote F_R: nothing holds, however still F_R is.
    standard = jnp.asarray([[0.0, 1.0]])
    bounds = jnp.stack([still] * 2)
    assert dual_radius(0.5, standard, logits, outputs, still, bounds).radius == 0
    assert dual_radius(0.99, standard, logits, outputs, still, bounds).radius == jnp.inf
