"""Cascades that go on from a journal: what a restart recalls, and what is begun anew."""

import dataclasses
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import planted
import pytest
from planted_cascade import CLIPS, EPSILON, LABELS, PARAMS, SETTINGS, run

from jaxmoe.attacks import AttackSettings
from jaxmoe.evaluation import Programs, evaluate_suite

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")


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
import planted_cascade
from jaxmoe.attacks import CASCADES
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
CASCADES["two"] = planted_cascade.TWO
planted_cascade.run(attacks=["two", "pgd"], journal={file!r})
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
    # Examples that are shown are made anew where other ones are chosen: none here.
    options = {"attacks": ["pgd"], "journal": tmp_path / "journal", "shown": 0}
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
    alone = run(attacks=["fgsm", "pgd", "two"], shown=0)
    for key, right in alone.correct.items():
        np.testing.assert_array_equal(more.correct[key], right)


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
