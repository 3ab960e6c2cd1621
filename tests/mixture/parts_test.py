"""Scores of a mixture's parts, against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.mixture import fixed_routes, from_functions, score_parts

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 5)).astype(np.float32), RNG.integers(0, 3, 6)
PARAMS = {
    "router": RNG.normal(size=(5, 4)).astype(np.float32),
    "experts": RNG.normal(size=(4, 5, 3)).astype(np.float32),
}


def judge(logits, y):
    return (jnp.argmax(logits, axis=-1) == y).astype(jnp.float32)


def all_scores(top_k):
    mixture = from_functions(
        lambda w, x: x @ w, lambda w, x: x @ w, num_experts=4, top_k=top_k, combine="softmax"
    )
    router, experts = mixture.route(PARAMS, X), mixture.experts(PARAMS, X)
    found = score_parts(mixture, judge, PARAMS, X, Y, router, experts)
    return jax.tree.map(np.asarray, (found, router, experts))


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_a_random_route_is_the_mean_over_all_sets_of_k_experts(top_k):
    found, router, experts = all_scores(top_k)
    sets = list(itertools.combinations(range(4), top_k))
    assert found.routes.shape == (len(sets), 6)
    for chosen, right in zip(sets, found.routes, strict=True):
        for clip in range(6):
            weights = np.exp([router[clip, i] for i in chosen])
            logits = sum(w * experts[i, clip] for w, i in zip(weights, chosen, strict=True))
            assert right[clip] == (np.argmax(logits) == Y[clip])


def test_a_random_route_of_a_dense_mixture_has_equal_weights():
    found, _, experts = all_scores(4)
    np.testing.assert_array_equal(found.routes[0], experts.mean(0).argmax(-1) == Y)


def test_more_than_sixteen_sets_are_drawn():
    routes = fixed_routes(8, 3)
    assert routes.shape == (16, 8)
    assert (np.isfinite(routes).sum(1) == 3).all()
    assert len(np.unique(routes, axis=0)) == 16


def test_experts_trust_and_agreement():
    found, router, experts = all_scores(1)
    predicted = np.argmax(experts, axis=-1)
    np.testing.assert_array_equal(found.experts, predicted == Y)
    for clip in range(6):
        assert found.trust[:, clip].tolist() == sorted(range(4), key=lambda i: -router[clip, i])
        pairs = itertools.combinations(predicted[:, clip], 2)
        same = np.mean([one == other for one, other in pairs])
        assert found.agreement[clip] == pytest.approx(same)
