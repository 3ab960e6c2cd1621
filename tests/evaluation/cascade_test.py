"""Cascades on planted models: who is attacked, what is reported, and what a restart recalls."""

import dataclasses
import pathlib
import random
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR, NEAR

from jaxmoe.attacks import CASCADES, AttackSettings, Cascade, Randomized, build_attack, stage
from jaxmoe.evaluation import Programs, auto_attack, evaluate_suite
from jaxmoe.evaluation.engine.cascade import Cascading
from jaxmoe.evaluation.engine.journal import Journal
from jaxmoe.evaluation.engine.standing import StandingClips
from jaxmoe.threat import ThreatModel

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

EPSILON = 4 / 255
SETTINGS = AttackSettings(steps=4, queries=4)
PARAMS = jnp.float32(10.0)
# Wrong when clean, breakable, safe, breakable, safe: frame 1 decides.
CLIPS = planted.clips((0, 0), (0, NEAR), (0, FAR), (0, NEAR), (0, FAR))
LABELS = [0, 0, 0, 0, 0]
PROGRAMS = Programs(planted.plain)


TWO = Cascade("Two", (stage("fgsm"), stage("pgd", restarts=2)))


@pytest.fixture
def cascade(monkeypatch):
    """A cascade called `two`: FGSM, then PGD with two restarts."""
    monkeypatch.setitem(CASCADES, "two", TWO)
    monkeypatch.setitem(CASCADES, "short", Cascade("Short", (stage("apgd-t"),)))


def run(**options):
    options = {"attacks": ["two"], "epsilons": [EPSILON], "settings": SETTINGS} | options
    factory = planted.batches(CLIPS, LABELS, batch_size=2)
    model = options.pop("model", planted.plain)
    programs = PROGRAMS if model is planted.plain else None
    return evaluate_suite(model, PARAMS, factory, programs=programs, probe_batches=0, **options)


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


def test_an_evaluation_that_was_stopped_goes_on_to_the_same_report(cascade, tmp_path, monkeypatch):
    whole = run(attacks=["two", "pgd"])
    taken = []
    attack = Programs.attack

    def counted(self, name, *args):
        taken.append(name)
        if len(taken) == stop:
            raise KeyboardInterrupt
        return attack(self, name, *args)

    monkeypatch.setattr(Programs, "attack", counted)
    for stop in (2, 3, 2):
        with pytest.raises(KeyboardInterrupt):
            run(attacks=["two", "pgd"], journal=tmp_path / "journal")
        assert len(taken) == stop
        taken.clear()
    stop = None
    lines = []
    resumed = run(attacks=["two", "pgd"], journal=tmp_path / "journal", say=lines.append)
    assert "results are there" in lines[0]
    for key, right in whole.correct.items():
        np.testing.assert_array_equal(resumed.correct[key], right)
    timed = {"seconds": 0.0, "compile_seconds": 0.0}
    assert [row._replace(**timed) for row in resumed.rows] == [
        row._replace(**timed) for row in whole.rows
    ]
    taken.clear()
    run(attacks=["two", "pgd"], journal=tmp_path / "journal")
    assert taken == []


# Runs the evaluation of `run` and is killed while it writes the batch of a given number.
KILLED = """
import os, pathlib, pickle, signal, sys
sys.path.insert(0, {folder!r})
import cascade_test
from jaxmoe.evaluation.engine import journal

dump, written = pickle.dump, []

def torn(record, stream):
    written.append(record)
    if len(written) == {number}:
        stream.write(pickle.dumps(record)[:{kept}])
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    dump(record, stream)

journal.pickle.dump = torn
cascade_test.CASCADES["two"] = cascade_test.TWO
cascade_test.run(attacks=["two", "pgd"], journal={file!r})
"""


def test_an_evaluation_that_was_killed_loses_the_batch_in_flight_alone(cascade, tmp_path):
    number, kept = 1 + random.randint(1, 5), random.randint(0, 20)
    folder, file = str(pathlib.Path(__file__).parent), str(tmp_path / "journal")
    script = KILLED.format(folder=folder, file=file, number=number, kept=kept)
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    lines = []
    resumed = run(attacks=["two", "pgd"], journal=file, say=lines.append)
    # The first record is the fingerprint.
    # A whole record may have been written when the kill came.
    done = [f": {count} results are there" in lines[0] for count in (number - 2, number - 1)]
    assert any(done) or number == 2
    whole = run(attacks=["two", "pgd"])
    timed = {"seconds": 0.0, "compile_seconds": 0.0}
    assert [row._replace(**timed) for row in resumed.rows] == [
        row._replace(**timed) for row in whole.rows
    ]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"settings": AttackSettings(router_output="logits")}]
)
def test_another_evaluation_does_not_go_on_from_the_journal(cascade, tmp_path, change):
    run(journal=tmp_path / "journal")
    lines = []
    run(journal=tmp_path / "journal", say=lines.append, **change)
    assert not any("results are there" in line for line in lines)


def test_a_journal_serves_more_attacks_other_epsilons_and_other_numbers(
    cascade, tmp_path, monkeypatch
):
    taken, attack = [], Programs.attack

    def counted(self, name, params, batch, epsilon, *more):
        taken.append((name, round(255 * epsilon)))
        return attack(self, name, params, batch, epsilon, *more)

    monkeypatch.setattr(Programs, "attack", counted)
    options = {"attacks": ["pgd"], "journal": tmp_path / "journal"}
    plain = [("pgd", 4)] * 3

    def took(**change):
        taken.clear()
        result = run(**options | change)
        return result, sorted(taken)

    assert took()[1] == plain
    more, steps = took(attacks=["fgsm", "pgd", "two"])
    assert steps.count(("pgd", 4)) == 2  # of the cascade, whose starts are its own
    assert set(steps) == {("fgsm", 4), ("pgd", 4)}
    assert took(attacks=["fgsm", "pgd", "two"])[1] == []
    assert took(epsilons=[EPSILON, 8 / 255])[1] == [("pgd", 8)] * 3
    queries = dataclasses.replace(SETTINGS, queries=9)
    assert took(settings=queries, attacks=["fgsm", "pgd"])[1] == []
    assert set(
        took(settings=dataclasses.replace(SETTINGS, steps=3), attacks=["fgsm", "pgd"])[1]
    ) == {("pgd", 4)}
    alone = run(attacks=["fgsm", "pgd", "two"])
    for key, right in alone.correct.items():
        np.testing.assert_array_equal(more.correct[key], right)


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


def test_auto_attack_takes_arrays_and_returns_what_broke_them():
    lines = []
    x, y = CLIPS, np.zeros(5, int)
    found = auto_attack(
        planted.plain,
        PARAMS,
        x,
        y,
        epsilon=EPSILON,
        version=["apgd-ce", "apgd-t", "fab-t", "square"],
        settings=SETTINGS,
        batch_size=4,
        say=lines.append,
    )
    np.testing.assert_array_equal(found.robust, [0, 0, 1, 0, 1])
    assert found.robust_accuracy == 2 / 5
    assert np.abs(found.x_adv - x / np.float32(255)).max() <= EPSILON + 1e-6
    right = np.asarray(planted.plain(PARAMS, jnp.asarray(found.x_adv)).argmax(-1) == y)
    np.testing.assert_array_equal(right, found.robust)
    assert [row.attack for row in found.log] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert "the margin takes its place" in lines[0]
    assert "80.00% of 5" in lines[1]


def test_auto_attack_says_where_gradients_look_masked():
    def quantised(scale, x):
        return planted.plain(scale, jnp.round(64 * x) / 64)

    lines = []
    options = {"version": ["pgd", "square"], "settings": AttackSettings(steps=2, queries=20)}
    clips = planted.clips((0, NEAR), (0, FAR), (0, NEAR), (0, FAR))
    found = auto_attack(
        quantised, jnp.float32(10.0), clips, [0] * 4, epsilon=8 / 255, say=lines.append, **options
    )
    assert {check.verdict for check in found.checks} == {"flag"}
    assert lines[-1].startswith("Masked gradients are likely (2 of 2 checks: zero gradients, white")
    assert (found.clean_accuracy, found.robust_accuracy) == (1, 0.5)
    assert len(repr(found)) < 120

    def softmax(scale, x):
        return jax.nn.softmax(planted.plain(scale, x))

    lines = []
    options["version"] = ["fgsm"]
    auto_attack(
        softmax, jnp.float32(10.0), clips, [0] * 4, epsilon=8 / 255, say=lines.append, **options
    )
    assert "look like probabilities" in lines[0]


def test_auto_attack_takes_vectors_and_names_its_compilation():
    x, lines = np.linspace(0.2, 0.8, 24, dtype=np.float32).reshape(4, 6), []
    found = auto_attack(
        lambda w, x: x @ w,
        jnp.asarray([[1.0, -1.0]] * 6) / 6,
        x,
        [0] * 4,
        epsilon=1.0,
        batch_size=4,
        say=lines.append,
        version=["fgsm", "square"],
        settings=AttackSettings(queries=50),
    )
    assert found.clean_accuracy == 1
    assert "s of compilation" in lines[1]


def test_auto_attack_refuses_what_it_cannot_run():
    def call(x=CLIPS, y=LABELS, epsilon=EPSILON, **options):
        return auto_attack(planted.plain, PARAMS, x, y, epsilon=epsilon, **options)

    with pytest.raises(ValueError, match=r"version: 'best' is not one of standard, plus, rand"):
        call(version="best")
    with pytest.raises(ValueError, match=r"x, y: shapes \(5, .* and \(4,\); expected"):
        call(y=[0] * 4)
    for epsilon in (-1.0, np.float32(-1)):
        with pytest.raises(ValueError, match=r"threat\.epsilon: -1"):
            call(epsilon=epsilon)
    with pytest.raises(ValueError, match=r"version: \[\] is not one of"):
        call(version=[])
    with pytest.raises(ValueError, match=r"batch_size: 0 is not at least 1"):
        call(batch_size=0)
    with pytest.raises(ValueError, match=r"clip: pixels from 0 to 230; expected floats in \[0, 1"):
        call(x=CLIPS.astype(np.float32))
    with pytest.raises(ValueError, match=r"clip: pixels of int64; expected uint8, or floats"):
        call(x=CLIPS.astype(np.int64))
    with pytest.raises(ValueError, match=r"label: 0 to 7 on a model of 2 classes; expected 0 to 1"):
        call(y=[0, 0, 0, 0, 7])
    with pytest.raises(ValueError, match=r"programs: compiled for another model"):
        call(programs=Programs(planted.MIXTURE))
    with pytest.raises(ValueError, match=r"attack: 'apgd-c' is no attack; did you mean apgd-ce"):
        call(version=["apgd-c"])
    with pytest.raises(ValueError, match=r"auto-attack is a cascade; expected one attack"):
        call(version=["autoattack"])


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


def test_examples_of_another_evaluation_do_not_stay(cascade, tmp_path):
    """Nor where the journal goes on, but not with that attack."""
    stale = tmp_path / "examples" / f"two-linf-{EPSILON:.6g}" / "stale.npz"
    options = {"journal": tmp_path / "journal", "examples": tmp_path / "examples"}
    run(attacks=["pgd"], **options)
    stale.parent.mkdir()
    stale.touch()
    run(attacks=["pgd"], **options)
    assert stale.exists()
    run(attacks=["pgd", "two"], **options)
    assert not stale.exists()


@pytest.mark.parametrize("other", ["model", "label", "clip"])
def test_a_journal_of_another_model_or_other_data_is_begun_anew(tmp_path, other):
    def evaluate(model=planted.plain, clip=CLIPS, label=LABELS):
        lines = []
        evaluate_suite(
            model,
            PARAMS,
            planted.batches(clip, label),
            attacks=["fgsm"],
            epsilons=[EPSILON],
            probe_batches=0,
            journal=tmp_path / "journal",
            say=lines.append,
        )
        return lines

    assert evaluate() == []
    assert "1 results are there" in evaluate()[0]
    changed = {
        "model": {"model": lambda scale, x: planted.plain(2 * scale, x)},
        "label": {"label": [1, 0, 0, 0, 0]},
        "clip": {"clip": CLIPS[::-1]},
    }
    (line,) = evaluate(**changed[other])
    assert "was of another evaluation" in line


def test_square_attacks_the_hard_mixture_in_every_gradient_mode():
    def broken(mode):
        settings = AttackSettings(queries=30, gradient=mode)
        threat = ThreatModel("linf", 8 / 255)
        attack = build_attack("square", planted.MIXTURE, threat, settings)
        x = jnp.asarray(planted.clips((FAR, NEAR), (NEAR, FAR)) / np.float32(255))
        return attack(jax.random.key(0), planted.PARAMS, x, jnp.zeros(2, jnp.int32)).x_adv

    np.testing.assert_array_equal(broken("hard"), broken("soft"))


def test_a_randomized_model_is_attacked_in_the_mean():
    def noisy(scale, x, key):
        return planted.plain(scale, x + jax.random.uniform(key, (), x.dtype, -0.01, 0.01))

    found = auto_attack(
        Randomized(noisy),
        PARAMS,
        CLIPS,
        LABELS,
        epsilon=8 / 255,
        version=["apgd-ce", "pgd"],
        settings=AttackSettings(steps=4, draws=3),
    )
    np.testing.assert_array_equal(found.robust, [0, 0, 1, 0, 1])
    assert found.log[0].gradient_evaluations == 4 * 5 * 3
    assert found.log[1].gradient_evaluations == 2 * 4 * 3
