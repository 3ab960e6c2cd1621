"""What an evaluation that goes on leaves in a folder."""

import json
import sys

import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.commands import evaluation_report
from jaxmoe.commands.evaluate import Plan
from jaxmoe.evaluation import Check, Row, SuiteResult
from jaxmoe.reporting.progress import PlainProgress
from jaxmoe.runs.other_clips import OtherClips
from jaxmoe.runs.run import Trained

EPSILON = 8 / 255
CLEAN = Row("clean", 0.0, "linf", 0.75, 0.75, 4, 0, None, None, 0, 0.5, 2.0)
PGD = CLEAN._replace(attack="pgd", epsilon=EPSILON, robust_accuracy=0.25, steps=10, restarts=1)
WORST = PGD._replace(attack="worst-case", steps=None)
PLAN = Plan(["pgd"], [EPSILON], AttackSettings(), ["hard"], 0, 4, "latest", "linf", None, None)
RESULT = SuiteResult((CLEAN, PGD, WORST), {}, np.arange(4), np.zeros(4), (), {}, {})


@pytest.fixture
def report(tmp_path, capsys, monkeypatch):
    """Begins a report in one folder; no figure is drawn."""

    def drawn(rows, folder, file_format):
        (folder / f"figure.{file_format}").touch()
        return folder / f"figure.{file_format}"

    monkeypatch.setattr(evaluation_report, "plot_robust_accuracy", drawn)

    def begin(other=None):
        trained = Trained(None, None, None, None, True, other)
        return evaluation_report.EvaluationReport(
            trained, tmp_path, PLAN, PlainProgress(sys.stdout), ("a crop",)
        )

    return begin


def test_the_headline_names_the_attack_that_did_most():
    def row(attack, epsilon, robust, mean_iou=None):
        start = (attack, epsilon, "linf", robust, robust, 4, 0, 1, 1, 1.0, 0.0, 0.0)
        return Row(*start, mean_iou=mean_iou)

    rows = [row("clean", 0.0, 0.9), row("pgd", 4 / 255, 0.2), row("pgd", 8 / 255, 0.5)]
    rows += [row("tla-m", 8 / 255, 0.4), row("worst-case", 8 / 255, 0.2)]
    # What breaks in a smaller ball is broken in the larger one too.
    said = "clean 90.0 %; worst case at ε = 8/255 20.0 %, most by pgd"
    assert evaluation_report.headline(rows) == said
    dense = [row("clean", 0.0, 0.9, 0.6), row("pgd", 0.1, 0.1, 0.3), row("fgsm", 0.1, 0.2, 0.2)]
    dense.append(row("worst-case", 0.1, 0.1, 0.1))
    assert evaluation_report.headline(dense).endswith("10.0 % mIoU, most by fgsm")
    assert evaluation_report.headline(rows[:1]) == "clean 90.0 %"


def attacks_in(folder):
    return [row["attack"] for row in json.loads((folder / "results.json").read_text())]


def test_rows_are_printed_and_written_as_they_end(report, tmp_path, capsys):
    own = report()
    own.keep(RESULT._replace(rows=(CLEAN,)))
    assert attacks_in(tmp_path) == ["clean"]
    assert "clean: accuracy 75.00% of 4" in capsys.readouterr().out
    own.keep(RESULT._replace(rows=(CLEAN, PGD)))
    assert attacks_in(tmp_path) == ["clean", "pgd"]
    assert "pgd ε = 8/255 linf: robust 25.00% of 4" in capsys.readouterr().out
    assert "Not finished: 2 of 2 rows, and no worst case" in (tmp_path / "results.md").read_text()
    assert not own.finished
    own.keep(RESULT)
    assert own.finished
    assert "robust accuracy %" in capsys.readouterr().out
    assert (tmp_path / "figure.png").is_file()
    checks = (Check("zero gradients", 0.0, "pass", "None was zero."),)
    own.close(RESULT._replace(checks=checks), None)
    output = capsys.readouterr().out
    assert "None was zero." in output
    assert "results.md, evaluation.json, figure.png" in output
    text = (tmp_path / "results.md").read_text()
    assert "None was zero." in text
    assert "a crop." in text
    details = json.loads((tmp_path / "evaluation.json").read_text())
    assert details["checks"][0]["verdict"] == "pass"


@pytest.mark.parametrize("details", ["", "{}", None, '{"attacks_finished": true}', "{torn"])
def test_a_finished_evaluation_stays_until_all_attacks_of_another_ran(report, tmp_path, details):
    (tmp_path / "results.json").write_text("[]")
    if details is not None:
        (tmp_path / "evaluation.json").write_text(details)
    own = report()
    own.keep(RESULT._replace(rows=(CLEAN, PGD)))
    assert attacks_in(tmp_path) == []
    assert own.stopped == "no result was written"
    own.keep(RESULT)
    assert attacks_in(tmp_path) == ["clean", "pgd", "worst-case"]


def test_it_says_which_clips_were_judged(report, tmp_path, capsys):
    own = report()
    own.keep(RESULT)
    details = json.loads((tmp_path / "evaluation.json").read_text())
    assert details["test_set"] == "the run's own test split"
    notes = ("not the run's own test split: 4 of new", "1 of the 4 are in the run's training split")
    other = OtherClips("image_folder", "new", None, "0123abcd", 4, 1, notes)
    own = report(other)
    own.keep(RESULT)
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("Not the run's own test split: 4 of new.\n\n1 of the 4 are in")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {row["test_set"] for row in rows} == {"0123abcd"}
    details = json.loads((tmp_path / "evaluation.json").read_text())["test_set"]
    assert (details["directory"], details["n"], details["in_training"]) == ("new", 4, 1)


def test_an_unfinished_evaluation_gives_way(report, tmp_path):
    report().keep(RESULT._replace(rows=(CLEAN, PGD)))
    report().keep(RESULT._replace(rows=(CLEAN,)))
    assert attacks_in(tmp_path) == ["clean"]
