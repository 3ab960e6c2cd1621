"""Specialisation: each figure against a plain rewrite, and what the words say."""

import itertools
import json
import math

import numpy as np
import pytest
from planted import FAR, MIXTURE, PARAMS, batches, clips

from jaxmoe.evaluation import evaluate_suite, specialization_sentence
from jaxmoe.evaluation.measures.significance import Estimate
from jaxmoe.evaluation.measures.specialization import columns_of, mutual_information, specialization
from jaxmoe.mixture import PartScores

N, M = 240, 3
RNG = np.random.default_rng(1)
LABEL = RNG.integers(0, 4, N)
DOMAIN = RNG.integers(0, M, N)


def planted(accuracy_at_home, accuracy_elsewhere, route):
    """Expert i is at home in domain i."""
    at_home = np.arange(M)[:, None] == DOMAIN
    share = np.where(at_home, accuracy_at_home, accuracy_elsewhere)
    experts = (RNG.random((M, N)) < share).astype(np.float32)
    trust = np.stack([(route + i) % M for i in range(M)])
    correct = np.take_along_axis(experts, trust[:1], axis=0)[0]
    return PartScores(experts, experts.copy(), trust, np.full(N, 0.5)), correct


def measured(*args):
    parts, correct = planted(*args)
    return specialization(parts, correct, LABEL, {"domain": DOMAIN}), parts, correct


def test_every_figure_equals_a_plain_rewrite():
    route = np.where(RNG.random(N) < 0.8, DOMAIN, RNG.integers(0, M, N))
    found, parts, correct = measured(0.9, 0.2, route)
    alone = [parts.experts[i].mean() for i in range(M)]
    assert [e.value for e in found.experts] == pytest.approx(alone)
    assert found.random_route.value == pytest.approx(np.mean(alone))
    assert found.best_single.value == pytest.approx(max(alone))
    assert found.mixture.value == pytest.approx(correct.mean())
    assert found.routing_gain.value == pytest.approx(correct.mean() - np.mean(alone))
    assert found.mixture_gain.value == pytest.approx(correct.mean() - max(alone))
    ranks = [
        np.mean([parts.experts[parts.trust[rank, clip], clip] for clip in range(N)])
        for rank in range(M)
    ]
    assert [rank.value for rank in found.by_trust] == pytest.approx(ranks)
    some = np.mean([any(parts.experts[i, clip] for i in range(M)) for clip in range(N)])
    assert found.oracle.value == pytest.approx(some)
    assert found.load == pytest.approx([(route == i).mean() for i in range(M)])
    perfect = np.mean(
        [
            parts.experts[max(range(M), key=lambda i: parts.experts[i][d == DOMAIN].mean()), clip]
            for clip, d in enumerate(DOMAIN)
        ]
    )
    assert found.perfect_route["domain"].value == pytest.approx(perfect)
    assert found.agreement == 0.5
    assert found.kind == "specialists"


def plain_information(first, second):
    total = 0.0
    for a, b in itertools.product(set(first), set(second)):
        joint = np.mean((first == a) & (second == b))
        if joint:
            total += joint * math.log(joint / (np.mean(first == a) * np.mean(second == b)))
    return total - (len(set(first)) - 1) * (len(set(second)) - 1) / (2 * len(first))


def test_information_equals_a_plain_rewrite_and_is_the_entropy_of_a_copy():
    other = np.where(RNG.random(N) < 0.5, DOMAIN, RNG.integers(0, M, N))
    found = mutual_information(DOMAIN, other)
    assert found.value == pytest.approx(plain_information(DOMAIN, other))
    assert found.low < found.value < found.high
    same = mutual_information(DOMAIN, DOMAIN).value
    shares = np.bincount(DOMAIN) / N
    assert same == pytest.approx(-np.sum(shares * np.log(shares)) - 4 / (2 * N))


def test_without_information_the_bias_is_gone():
    found = [
        mutual_information(np.random.default_rng(i).integers(0, 4, 300), LABEL_300).value
        for i in range(200)
    ]
    # Without the correction the mean is 9 / 600.
    assert abs(np.mean(found)) < 0.003


LABEL_300 = np.arange(300) % 4


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    inside = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        experts = (rng.random((2, 100)) < [[0.7], [0.5]]).astype(float)
        trust = np.array([np.zeros(100, int), np.ones(100, int)])
        parts = PartScores(experts, experts, trust, np.zeros(100))
        gain = specialization(parts, experts[0], np.zeros(100, int)).routing_gain
        inside += gain.low <= 0.1 <= gain.high
    assert 0.92 <= inside / 300 <= 0.985


@pytest.mark.parametrize(
    ("home", "elsewhere", "route", "kind", "words"),
    [
        (0.7, 0.7, DOMAIN, "copies", "decides nothing"),
        (0.9, 0.1, DOMAIN, "specialists", "The router decides"),
        (0.9, 0.1, np.zeros(N, int), "collapsed", "this is one network"),
    ],
)
def test_the_kinds_and_their_words(home, elsewhere, route, kind, words):
    found, _, _ = measured(home, elsewhere, route)
    assert found.kind == kind
    assert words in specialization_sentence(found)
    assert json.loads(json.dumps(found.as_json()))["kind"] == kind


def test_a_random_route_that_is_better_gains():
    found, _, _ = measured(0.7, 0.7, DOMAIN)
    lost = found._replace(routing_gain=Estimate(0.031, -0.01, 0.07))
    assert "a random route costs 3.1 points (-1.0 to 7.0)" in specialization_sentence(lost)
    won = found._replace(routing_gain=Estimate(-0.083, -0.2, 0.01))
    assert "a random route gains 8.3 points (-1.0 to 20.0)" in specialization_sentence(won)


def test_a_suite_measures_a_mixture_and_compares_routes_with_columns():
    low, high = 255 - FAR, FAR
    levels = [(low, low), (low, high), (high, low), (high, high)] * 10
    label = [0, 1, 1, 0] * 10  # expert 0 is right where u > ½ and v ≤ ½: never; see `planted`
    columns = {
        "side": {i: "right" if levels[i][0] > 127 else "left" for i in range(40)},
        "path": {i: f"clip {i}" for i in range(40)},
    }
    result = evaluate_suite(
        MIXTURE,
        PARAMS,
        batches(clips(*levels), label, 16),
        attacks=(),
        epsilons=(8 / 255,),
        checks=False,
        columns=columns,
    )
    found = result.specialization
    assert found.n == 40
    assert [e.value for e in found.experts] == [0.5, 0.5]
    assert found.random_route.value == 0.5
    assert list(found.column_information) == ["side"], "a column that names each clip sorts nothing"
    assert found.column_information["side"].value == pytest.approx(math.log(2) - 1 / 80)
    assert found.perfect_route["side"].value == 1.0
    assert result.rows[0].expert_accuracy == [0.5, 0.5]
    assert result.rows[0].routing_gain == found.routing_gain.value
    assert found.agreement == 0.0


def test_a_column_that_lacks_a_clip_is_one_line():
    with pytest.raises(
        ValueError, match="columns: 'side' has no value for example 7; expected one"
    ):
        columns_of([3, 7], {"side": {3: "left"}})


def test_experts_that_are_as_good_are_called_so():
    right = np.ones(50)
    trust = np.stack([np.arange(50) % 2, 1 - np.arange(50) % 2])
    parts = PartScores(np.ones((2, 50)), np.ones((2, 50)), trust, right)
    found = specialization(parts, right, np.arange(50) % 2)
    assert "the best expert alone is as good" in specialization_sentence(found)


def test_a_model_without_a_router_has_no_such_figures():
    result = evaluate_suite(
        lambda params, x: MIXTURE.expert(params, x, 0),
        PARAMS,
        batches(clips((0, 0), (0, FAR)), [1, 0]),
        attacks=(),
        epsilons=(8 / 255,),
        checks=False,
    )
    assert result.specialization is None
    assert result.rows[0].expert_accuracy is None
