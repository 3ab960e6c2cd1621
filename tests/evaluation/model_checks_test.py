"""Models that guess, and outputs that are no logits, are told from honest ones."""

import jax.nn
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR

from jaxmoe.attacks import AttackSettings
from jaxmoe.evaluation import (
    EvaluationWarning,
    Grid,
    auto_attack,
    evaluate_suite,
    sweep_grid,
    transfer_matrix,
)
from jaxmoe.evaluation.certify.certification import smoothing_curve
from jaxmoe.evaluation.certify.smoothing import Smoothing
from jaxmoe.evaluation.diagnostics.model_checks import guessing_check, logits_check
from jaxmoe.evaluation.engine.verdict import verdict_line

PARAMS = jnp.float32(10.0)
CLIPS = planted.clips(*[(0, FAR), (0, 0)] * 8)
LABELS = np.array([0, 1] * 8)


def guess(right, n, labels=2, **options):
    label = np.arange(n) % labels
    return guessing_check((np.arange(n) < right).astype(float), label, labels, **options)


@pytest.mark.parametrize(
    ("right", "n", "classes", "verdict"),
    [
        (22, 40, 2, "flag"),  # 55 %: J-TLAT at chance
        (30, 40, 2, "pass"),
        (550, 1000, 2, "pass"),
        (4, 40, 10, "flag"),
        (10, 40, 10, "pass"),
        (0, 40, 10, "flag"),
        (3, 3, 2, "not run"),
        (6, 6, 2, "pass"),
    ],
)
def test_accuracy_is_held_against_a_guess(right, n, classes, verdict):
    check = guess(right, n, classes)
    assert (check.verdict, check.kind) == (verdict, "model")
    assert check.value == pytest.approx(right / n - np.bincount(np.arange(n) % classes).max() / n)
    assert f"chance is {100 / classes:.1f}%" in check.sentence


def test_the_largest_class_is_a_guess_too():
    label = np.repeat([0, 1, 2], [32, 4, 4])
    check = guessing_check((label == 0).astype(float), label, 3, np.zeros(40, int), 9.0)
    assert check.verdict == "flag"
    assert "the largest class 80.0%; 100.0% of the predictions are of one class" in check.sentence
    assert guessing_check(np.ones(40), label, 3).verdict == "pass"
    assert guessing_check(np.ones(40), 0 * label, 3).verdict == "not run"


def test_barely_above_chance_counts_where_margins_are_tiny():
    assert guess(560, 1000, margin=0.15).verdict == "flag"
    assert guess(560, 1000, margin=3.0).verdict == "pass"
    assert guess(800, 1000, margin=0.05).verdict == "pass"  # logits of a small scale
    sentence = guess(560, 1000, margin=0.15).sentence
    assert "margin of the first logit is 0.15: hardly more than a guess" in sentence
    # Fourteen of a hundred classes' clips in a hundred: adversarial training has small margins.
    assert guess(140, 1000, 100, margin=0.3).verdict == "pass"


def test_shares_of_pixels_are_held_against_the_most_frequent_class():
    label = np.zeros((12, 4, 4), np.int32)
    label[:, 0], label[:, 3] = -1, 1  # two thirds of the labelled pixels are of class 0
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, 12)
    assert guessing_check(0.67 + noise, label, 2).verdict == "flag"
    assert guessing_check(0.9 + noise, label, 2).verdict == "pass"


def test_probabilities_are_no_logits():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert logits_check(logits).verdict == "pass"
    assert logits_check(np.asarray(jax.nn.softmax(logits, -1))).verdict == "flag"
    assert logits_check(np.asarray(jax.nn.log_softmax(logits, -1))).verdict == "pass"
    assert logits_check(np.ones((5, 1), np.float32)).verdict == "pass"


def constant(scale, x):
    """Always a little for class 0."""
    return planted.two_sides(0.1 + 0 * scale * planted.means(x)[:, 1])


def batches(labels=LABELS):
    return planted.batches(CLIPS, labels)


def suite(model, **options):
    options = {"attacks": ["fgsm"], "epsilons": [0.01], "probe_batches": 0} | options
    return evaluate_suite(model, PARAMS, batches(), **options)


def whole(model, **options):
    settings = AttackSettings(steps=2)
    return auto_attack(
        model, PARAMS, CLIPS, LABELS, epsilon=0.01, version=["fgsm"], settings=settings, **options
    )


def sweep(model, **options):
    return sweep_grid(model, PARAMS, batches(), attacks=["fgsm"], grid=Grid((0.01,)), **options)


def matrix(model, **options):
    models = {"one": (model, PARAMS)}
    return transfer_matrix(models, models, batches(), attacks=["fgsm"], epsilons=[0.01], **options)


def curve(model, **options):
    smoothing = Smoothing(selection=2, samples=10)
    return smoothing_curve(model, PARAMS, batches()(), [0.0], smoothing, **options)


ALL = [suite, whole, sweep, matrix, curve]


@pytest.mark.parametrize("run", ALL)
def test_a_guess_is_a_warning_or_is_said_and_the_repr_has_it(run):
    with pytest.warns(EvaluationWarning) as caught:
        result = run(constant)
    warned = [
        str(one.message) for one in caught if "not to be told from a guess" in str(one.message)
    ]
    assert len(warned) == 1
    assert caught[0].filename == __file__
    assert "better than a guess" in repr(result).partition("flagged: ")[2]
    assert "50.0%" in repr(result) or "0.5000" in repr(result)
    assert len(repr(result)) < 220
    lines = []
    run(constant, say=lines.append)  # pytest makes any warning an error
    assert sum("not to be told from a guess" in line for line in lines) == 1


@pytest.mark.parametrize("run", ALL)
def test_an_honest_model_is_told_of_nothing(run):
    result = run(planted.plain)
    assert "no flag in " in repr(result)
    assert "100.0%" in repr(result) or "1.0000" in repr(result)


@pytest.mark.parametrize("run", ALL)
def test_a_model_that_depends_on_the_batch_is_told_of(run):
    def model(scale, x):
        v = planted.means(x)[:, 1]
        return planted.two_sides(scale * (v - v.mean()))

    lines = []
    result = run(model, say=lines.append)
    assert any("place in the batch or on the other examples" in line for line in lines)
    assert "same answer in any batch" in repr(result).partition("flagged: ")[2]


def test_probabilities_are_told_of_by_a_suite_too():
    model = lambda scale, x: jax.nn.softmax(planted.plain(scale, x), axis=-1)  # noqa: E731
    with pytest.warns(EvaluationWarning, match="Outputs look like probabilities"):
        result = suite(model)
    (check,) = (one for one in result.model_checks if one.name == "outputs are logits")
    assert verdict_line([*result.checks, check]).endswith(check.sentence)


def test_masked_gradients_are_a_warning():
    quantised = lambda scale, x: planted.plain(scale, jnp.round(2 * x) / 2)  # noqa: E731
    with pytest.warns(EvaluationWarning, match="sign of masked|Masked gradients are likely"):
        result = suite(quantised)
    assert "flagged: zero gradients" in repr(result)


def test_checks_that_are_not_wanted_are_not_made():
    assert suite(constant, checks=False).model_checks == ()
    assert curve(constant, checks=False).model_checks == ()


def test_another_metric_has_another_chance():
    metric = lambda logits, labels: jnp.ones(len(labels))  # noqa: E731
    names = [check.name for check in suite(planted.plain, metric=metric).model_checks]
    assert "outputs are logits" in names
    assert "better than a guess" not in names
