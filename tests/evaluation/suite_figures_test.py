"""Figures of suites on mixtures whose every answer is known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR, NEAR
from planted_suite import (
    CLIPS,
    EPSILON,
    FACTORY,
    LABELS,
    SETTINGS,
    attack_that_returns,
    run,
    run_plain,
)

from jaxmoe import attacks
from jaxmoe.attacks import ATTACKS, AttackResult, NamedAttack
from jaxmoe.evaluation import Programs, evaluate_suite

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")


def test_worst_case_is_the_and_of_every_clip_not_the_smallest_mean():
    result = run()
    assert result.row("clean").robust_accuracy == 4 / 5
    assert result.row("pgd", EPSILON).robust_accuracy == 3 / 5
    assert result.row("pgd-r", EPSILON).robust_accuracy == 2 / 5
    assert result.row("worst-case", EPSILON).robust_accuracy == 1 / 5
    np.testing.assert_array_equal(result.correct["pgd-r", EPSILON], [0, 0, 1, 1, 0])


def test_a_clip_wrong_when_clean_is_not_robust_even_if_the_attack_corrects_it():
    clip = planted.clips((FAR, NEAR))
    # A metric that counts the wrong class: the clean clip fails it, and the attack corrects that.
    result = run_plain(
        factory=planted.batches(clip, [0]),
        attacks=["fgsm"],
        metric=lambda logits, labels: (jnp.argmax(logits, -1) == 1 - labels).astype(jnp.float32),
    )
    row = result.row("fgsm", EPSILON)
    assert row.accuracy_under_attack == 1
    assert row.robust_accuracy == 0


def test_an_attack_reaches_as_far_as_epsilon_and_no_further():
    result = run(epsilons=[2 / 255, 3 / 255, 4 / 255], attacks=["pgd"])
    assert [result.row("pgd", k / 255).robust_accuracy for k in (2, 3, 4)] == [0.8, 0.8, 0.6]


def test_routing_figures_are_those_of_the_planted_routes():
    row = run().row("pgd-r", EPSILON)
    assert row.flip_rate == 2 / 5
    assert row.routing_iou == pytest.approx(3 / 5)
    assert row.load_clean == [1, 0]
    np.testing.assert_allclose(row.load_adversarial, [3 / 5, 2 / 5])


def test_lipschitz_figures_are_those_of_the_planted_slopes():
    # FGSM moves v alone by ε: logits change by 10 ε, the clip's mean square is half of ε².
    row = run(attacks=["fgsm"]).row("fgsm", EPSILON)
    assert row.lipschitz_model_mean == pytest.approx(2 * 10**2, rel=1e-3)
    np.testing.assert_allclose(row.lipschitz_experts_max, [200, 200], rtol=1e-3)
    assert row.lipschitz_router_logits_max == pytest.approx(0, abs=1e-6)
    assert row.lipschitz_router_weights_max == pytest.approx(0, abs=1e-6)


def test_costs_and_settings_stand_beside_the_accuracy():
    settings = dataclasses.replace(SETTINGS, restarts=2, steps=5)
    result = run(attacks=["fgsm", "PGD_R"], settings=settings, seed=7)
    fgsm, router, worst = (result.row(name, EPSILON) for name in ("fgsm", "pgd-r", "worst-case"))
    assert (fgsm.steps, fgsm.restarts, fgsm.gradient_evaluations) == (1, 1, 1)
    assert (router.steps, router.restarts, router.gradient_evaluations) == (5, 2, 10)
    assert len(router.loss_trace) == 2 * 6
    assert worst.gradient_evaluations == 11
    assert {row.seed for row in result.rows} == {7}
    assert {row.n for row in result.rows} == {5}
    assert router.compile_seconds > 0 < router.seconds


def test_a_clip_must_survive_every_restart_whatever_its_loss(monkeypatch):
    """Restart 0 breaks clip 0 with a small loss, restart 1 clip 1; the others have great losses."""
    breaks = jnp.array([[True, False], [False, True]])

    def build(name, model, threat, settings):
        def attack(key, params, x, y):
            number = len(calls)
            calls.append(key)
            darker = jnp.asarray(x).at[:, 1].add(-4 / 255)
            x_adv = jnp.where(breaks[number].reshape(2, 1, 1, 1, 1), darker, x)
            loss = jnp.where(breaks[number], 0.1, 9.0)
            return AttackResult(
                x_adv, loss, jnp.stack([loss, loss]), jnp.int32(1), jnp.zeros(2), jnp.ones(2, bool)
            )

        return attack

    calls = []
    factory = planted.batches(planted.clips((FAR, NEAR), (FAR, NEAR)), [0, 0])
    monkeypatch.setattr("jaxmoe.evaluation.engine.programs.build_attack", build)
    result = run_plain(
        programs=_Uncompiled(planted.plain),
        factory=factory,
        settings=dataclasses.replace(SETTINGS, steps=1, restarts=2),
    )
    row = result.row("pgd", EPSILON)
    assert len(calls) == 2
    assert (calls[0] != calls[1]).all()
    assert row.robust_accuracy == 0
    np.testing.assert_allclose(row.loss_trace, [4.55] * 4)


class _Uncompiled(Programs):
    """Runs what it is given every time, so that an attack may count its calls."""

    def timed(self, name, program, *args, examples=()):
        return program(*args), 0.0


def test_the_worst_case_at_an_epsilon_holds_that_of_the_smaller_ones(monkeypatch):
    """An attack that breaks clip 0 at the smaller ε alone, clip 1 at the larger."""

    def build(model, threat, settings):
        def attack(key, params, x, y):
            small = threat.epsilon < 0.15
            breaks = jnp.where(small, jnp.arange(len(x)) == 0, jnp.arange(len(x)) == 1)
            x_adv = jnp.where(breaks[:, None, None, None, None], x - threat.epsilon, x)
            zero = jnp.zeros(len(x))
            trace = jnp.zeros((2, len(x)))
            return AttackResult(x_adv, zero, trace, jnp.int32(1), zero, zero == 0)

        return attack

    monkeypatch.setitem(ATTACKS, "told", NamedAttack("told", build, "model"))
    found = evaluate_suite(
        planted.plain,
        jnp.float32(10.0),
        planted.batches(planted.clips(*[(140, 140)] * 3), [0] * 3),
        attacks=["told"],
        epsilons=[0.2, 0.1],
        probe_batches=0,
    )
    assert found.row("told", 0.2).robust_accuracy == pytest.approx(2 / 3)
    assert found.row("worst-case", 0.1).robust_accuracy == pytest.approx(2 / 3)
    assert found.row("worst-case", 0.2).robust_accuracy == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("component", "isolated"), [("router", 3 / 5), ("experts", 1 / 5), ("model", None)]
)
def test_an_isolated_part_alone_sees_the_attack(monkeypatch, component, isolated):
    """Both frames go down: a NEAR route turns, to the expert that says the opposite of v."""
    levels = (NEAR, NEAR), (FAR, NEAR), (FAR, NEAR), (FAR, FAR), (NEAR, FAR)
    factory = planted.batches(planted.clips(*levels), [0, 0, 0, 0, 1])
    liar = attack_that_returns(lambda x, e: x - e, component)
    monkeypatch.setitem(attacks.ATTACKS, "liar", liar)
    row = run(factory, attacks=["liar"], programs=Programs(planted.MIXTURE)).row("liar", EPSILON)
    # The first turns twice, end to end; the last is wrong when clean.
    assert row.robust_accuracy == 2 / 5
    assert row.accuracy_under_attack == 3 / 5
    assert row.isolated_accuracy == isolated


def test_what_an_attack_believes_is_not_the_result(monkeypatch):
    monkeypatch.setitem(attacks.ATTACKS, "liar", attack_that_returns(lambda x, e: x))
    assert run_plain(attacks=["liar"]).row("liar", EPSILON).robust_accuracy == 4 / 5


def test_l2_is_measured_by_its_own_norm():
    # A frame has 64 pixels: v moves by ε / 8, and 3.5 / 255 · 8 is 0.110.
    factory = planted.batches(CLIPS[2:4], [0, 0])
    result = run_plain(attacks=["fgsm"], norm="l2", epsilons=[0.1, 0.12], factory=factory)
    assert result.row("fgsm", 0.1).robust_accuracy == 1
    assert result.row("fgsm", 0.12).robust_accuracy == 0.5


def test_a_plain_classifier_has_general_attacks_and_no_routing():
    row = run_plain(attacks=["fgsm"]).row("fgsm", EPSILON)
    assert row.robust_accuracy == 3 / 5
    assert row.lipschitz_model_mean > 0
    routing = ("flip_rate", "routing_iou", "load_clean", "lipschitz_experts_mean")
    for name in (*routing, "isolated_accuracy"):
        assert getattr(row, name) is None
    with pytest.raises(ValueError, match="no such parts"):
        run_plain(attacks=["pgd-r"])


def test_margins_are_how_far_the_labels_logit_is_above_the_next():
    result = run(attacks=["pgd"])
    logits = np.asarray(planted.MIXTURE.apply(planted.PARAMS, next(iter(FACTORY()))["clip"] / 255))
    own = logits[np.arange(len(LABELS)), LABELS]
    np.testing.assert_allclose(
        result.margins["clean", 0.0], own - logits[np.arange(len(LABELS)), 1 - np.array(LABELS)]
    )
    attacked = result.margins["pgd", EPSILON]
    np.testing.assert_array_equal(attacked > 0, result.correct["pgd", EPSILON] > 0)


def test_labels_that_are_no_classes_have_no_margin():
    batch = {**next(iter(FACTORY())), "label": np.zeros((5, 3), np.int32)}
    result = run_plain(
        factory=lambda: [batch],
        metric=lambda logits, labels: (labels[:, 0] == 0).astype(jnp.float32),
        attacks=[],
    )
    assert result.margins is None
    assert result.confusion is None
