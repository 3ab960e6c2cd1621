"""Cascades on planted models: who is attacked, how often, and what is reported."""

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR, NEAR
from planted_cascade import CLIPS, EPSILON, LABELS, PARAMS, PROGRAMS, SETTINGS, run

from jaxmoe.attacks import CASCADES, AttackSettings, Cascade, Randomized, build_attack, stage
from jaxmoe.evaluation import Programs, evaluate_suite
from jaxmoe.evaluation.engine.cascade import Cascading
from jaxmoe.evaluation.engine.journal import Journal
from jaxmoe.evaluation.engine.standing import StandingClips
from jaxmoe.threat import ThreatModel

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")


def test_each_attack_sees_what_the_ones_before_it_left(cascade):
    result = run()
    first, second = result.stages
    assert (first.attack, first.attacked, first.standing) == ("fgsm", 4, 2)
    assert (second.attack, second.attacked, second.standing) == ("pgd", 2, 2)
    assert first.gradient_evaluations == 4
    assert second.gradient_evaluations == 2 * 2 * SETTINGS.steps
    row = result.row("two", EPSILON)
    assert row.robust_accuracy == second.robust_accuracy == 2 / 5
    assert row.gradient_evaluations == (4 + 16) / 5
    np.testing.assert_array_equal(result.correct["two", EPSILON], [0, 0, 1, 0, 1])
    assert result.row("worst-case", EPSILON).robust_accuracy == 2 / 5


def test_it_says_a_line_for_each_attack(cascade):
    lines = []
    run(say=lines.append)
    first, second = lines
    assert "fgsm" in first
    assert "robust 40.00%, 2 of 4 left" in first
    assert "2 of 2 left" in second


def test_a_cascade_reads_the_clips_once_for_all_attempts_and_epsilons(cascade):
    passes = []

    def factory():
        passes.append(1)
        return planted.batches(CLIPS, LABELS, batch_size=2)()

    options = {"attacks": ["two"], "epsilons": [EPSILON, 8 / 255], "settings": SETTINGS}
    found = evaluate_suite(
        planted.plain, PARAMS, factory, programs=PROGRAMS, probe_batches=0, **options
    )
    assert found.stages[1].attacked == 2
    assert len(passes) == 2  # the clean one, and one for two attacks with three starts at two ε


def test_examples_are_kept_on_request(cascade, tmp_path):
    result = run(attacks=["two", "pgd"], examples=tmp_path)
    right = np.zeros(5)
    for file in sorted((tmp_path / f"pgd-linf-{EPSILON:.6g}").glob("*.npz")):
        kept = np.load(file)
        right[kept["index"]] = kept["correct"]
        clean = CLIPS[kept["index"]] / np.float32(255)
        assert np.abs(kept["x_adv"] - clean).max() <= EPSILON + 1e-6
        logits = planted.plain(PARAMS, jnp.asarray(kept["x_adv"]))
        np.testing.assert_array_equal(logits.argmax(-1) == kept["label"], kept["correct"])
    np.testing.assert_array_equal(right, result.correct["pgd", EPSILON])
    broken = set()
    for file in (tmp_path / f"two-linf-{EPSILON:.6g}").glob("*.npz"):
        kept = np.load(file)
        broken |= set(kept["index"][kept["correct"] == 0].tolist())
    assert broken == {1, 3}


def test_every_gradient_mode_is_tried_and_a_clip_survives_all_or_none(cascade):
    # Router weights scale the logits: the soft mixture's gradient sees frame 0 too.
    result = evaluate_suite(
        planted.MIXTURE,
        planted.PARAMS,
        planted.batches(planted.clips((FAR, NEAR), (FAR, FAR)), [0, 0]),
        attacks=["pgd", "pgd-r", "two"],
        epsilons=[EPSILON],
        settings=AttackSettings(steps=8),
        gradients=["hard", "soft"],
        probe_batches=0,
    )
    row = result.row("pgd", EPSILON)
    assert (row.gradient, row.gradient_evaluations) == ("hard+soft", 2 * 8)
    assert row.robust_accuracy == 1 / 2
    assert (result.row("pgd-r", EPSILON).gradient, result.row("two", EPSILON).gradient) == (
        None,
        "hard+soft",
    )
    assert result.stages[0].gradient_evaluations == 2 + 1  # the second mode sees what is left


def test_where_dlr_has_too_few_classes_it_says_so(cascade):
    lines = []
    assert run(attacks=["short"], say=lines.append).notes == tuple(lines[:1])
    note = "apgd-t: 2 classes are too few for the difference-of-logits ratio; the margin takes its"
    assert lines[0].startswith(note)
    assert run(attacks=["pgd"]).notes == ()


def test_the_versions_are_the_authors():
    def numbers(name):
        return [(stage.attack, dict(stage.numbers)) for stage in CASCADES[name].stages]

    once, five = {"steps": 100, "restarts": 1}, {"steps": 100, "restarts": 5}
    targets, square = once | {"targets": 9}, ("square", {"queries": 5000, "restarts": 1})
    by_target = [("apgd-t", targets), ("fab-t", targets)]
    assert numbers("auto-attack") == [("apgd-ce", once), *by_target, square]
    first = [("apgd-ce", five), ("apgd-dlr", five), ("fab", five)]
    assert numbers("auto-attack-plus") == [*first, square, *by_target]
    draws = once | {"draws": 20}
    assert numbers("auto-attack-rand") == [("apgd-ce", draws), ("apgd-dlr", draws)]


@pytest.mark.parametrize(("classes", "attempts"), [(10, 9), (3, 2)])
def test_every_target_is_an_attempt_and_fab_keeps_its_starts_in_one(classes, attempts):
    def model(params, x):
        return params * x.reshape(len(x), -1)[:, :classes]

    x = np.zeros((2, 4, 4, 1), np.float32)
    batch = {
        "clip": x,
        "label": np.zeros(2, int),
        "index": np.arange(2),
        "valid": x[:, 0, 0, 0] == 0,
    }
    programs = Programs(model)
    clips, settings = StandingClips(lambda: [batch]), AttackSettings(restarts=3)
    cascading = Cascading(programs, 1.0, clips, settings, 0, ("hard",), Journal(None, ""))
    settings = list(cascading._attempts(stage("apgd-t", restarts=1)))
    assert [s.first_target for s in settings] == list(range(attempts))
    assert {(s.targets, s.restarts, s.early_stop) for s in settings} == {(1, 1, True)}
    assert [s.restarts for s in cascading._attempts(stage("apgd-ce"))] == [1, 1, 1]
    assert [s.restarts for s in cascading._attempts(stage("fab"))] == [3]
    assert len(list(cascading._attempts(stage("mi-fgsm")))) == 1
    noisy = cascading._replace(programs=Programs(Randomized(lambda p, x, key: model(p, x))))
    assert not any(s.early_stop for s in noisy._attempts(stage("apgd-ce")))
    soft = cascading._replace(gradients=("soft", "hard"))
    modes = [(s.gradient, s.early_stop) for s in soft._attempts(stage("apgd-ce", restarts=1))]
    assert modes == [("soft", False), ("hard", True)]


def test_restarts_of_fab_start_elsewhere():
    def flat_around_clean(scale, x):
        away = jnp.abs(x[:, 1, 0, 0, 0] - 0.5)
        return planted.two_sides(scale * (0.004 - jnp.maximum(away - 0.001, 0)))

    def robust(restarts, attack):
        found = evaluate_suite(
            flat_around_clean,
            PARAMS,
            planted.batches(np.full((4, 2, 8, 8, 1), 0.5, np.float32), [0] * 4),
            attacks=[attack],
            epsilons=[8 / 255],
            settings=AttackSettings(steps=3, restarts=restarts),
            probe_batches=0,
        )
        return found.row(attack, 8 / 255).robust_accuracy

    assert robust(1, "fab") == 1
    assert robust(5, "fab") < 1
    CASCADES["alone"] = Cascade("Alone", (stage("fab"),))
    try:
        assert robust(5, "alone") < 1
    finally:
        del CASCADES["alone"]


def test_a_pass_with_other_clips_than_the_clean_one_is_refused(cascade):
    passes = []

    def shuffled():
        passes.append(1)
        order = slice(None, None, -1 if len(passes) > 1 else 1)
        yield from planted.batches(CLIPS[order], LABELS)()
        # `index` follows the clips.

    def factory():
        for batch in shuffled():
            batch["index"] = batch["index"][:: -1 if len(passes) > 1 else 1]
            yield batch

    with pytest.raises(ValueError, match=r"batches: pass differs from the clean one"):
        evaluate_suite(
            planted.plain,
            PARAMS,
            factory,
            attacks=["two"],
            epsilons=[EPSILON],
            settings=SETTINGS,
            probe_batches=0,
        )


@pytest.mark.nightly
def test_square_attacks_the_hard_mixture_in_every_gradient_mode():
    def broken(mode):
        settings = AttackSettings(queries=30, gradient=mode)
        threat = ThreatModel("linf", 8 / 255)
        attack = build_attack("square", planted.MIXTURE, threat, settings)
        x = jnp.asarray(planted.clips((FAR, NEAR), (NEAR, FAR)) / np.float32(255))
        return attack(jax.random.key(0), planted.PARAMS, x, jnp.zeros(2, jnp.int32)).x_adv

    np.testing.assert_array_equal(broken("hard"), broken("soft"))
