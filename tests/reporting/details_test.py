"""`evaluation.json` and the page: which run and part it is of, and whether it is of the results."""

import importlib
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.cli import main
from jaxmoe.commands import report
from jaxmoe.evaluation import Check, Row, SuiteResult
from jaxmoe.reporting.details import write_details, write_evaluation
from jaxmoe.reporting.page import gather, page
from jaxmoe.reporting.page.gather import names_of
from jaxmoe.reporting.page.sections.verdict import verdict
from jaxmoe.reporting.results import write_results
from tests.reporting.page.folders import make_run

CLEAN = Row("clean", 0.0, "linf", 0.75, 0.75, 4, 0, None, None, 0, 0.5, 2.0)
PGD = CLEAN._replace(attack="pgd", epsilon=8 / 255, robust_accuracy=0.25, steps=10, restarts=1)
CHECKS = (Check("zero gradients", 0.0, "pass", "None was zero."),)
CORRECT = {("clean", 0.0): np.array([1, 1, 1, 0]), ("pgd", 8 / 255): np.array([1, 0, 0, 0])}
RESULT = SuiteResult((CLEAN, PGD), CORRECT, np.arange(4), np.zeros(4, int), CHECKS, {}, {})
SETTINGS = {"settings": AttackSettings(), "gradients": ["hard"], "checkpoint": "latest"}


def judge(folder, run, part=None, result=RESULT):
    """Writes an evaluation of a run, or of a part of it, into a folder."""
    write_results(result.rows, folder)
    write_details(result, folder, run, part=part, training_finished=True, **SETTINGS)
    return folder


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("expert2", "expert 2 of 4 × resnet: one network, without a router"),
        ("mean", "the mean of the logits of 4 × resnet, without a router"),
        ("max", "the largest logits of 4 × resnet, without a router"),
    ],
)
@pytest.mark.parametrize("place", ["run/{}", "elsewhere"])
def test_a_part_is_not_told_as_the_whole(tmp_path, monkeypatch, part, said, place):
    run = make_run(tmp_path / "run")
    gathering = importlib.import_module("jaxmoe.reporting.page.gather")  # a function's name too
    monkeypatch.setattr(gathering, "_trained", lambda _: {"seconds": 60.0, "global_step": 9})
    found = gather(judge(tmp_path / place.format(part), run, part))
    assert (found.part, found.experts) == (part, 1)
    facts = dict(verdict(found).facts)
    assert (facts["model"], facts["data"]) == (said, "video_folder")
    assert "training" not in dict(verdict(found).costs)
    assert "training" in dict(verdict(gather(run)).costs)
    text = page([found])
    assert "it has no router, and there is no route to turn" in text
    assert "says nothing of routes" not in text
    assert "Validation while training" not in text


def test_a_part_of_an_evaluation_of_before_is_known_by_its_folder(tmp_path):
    run = make_run(tmp_path / "run")
    for name, part in (("expert0", "expert0"), ("mean", "mean"), ("mine", None)):
        write_results(RESULT.rows, run / name)
        assert gather(run / name).part == part
    assert names_of([run / "expert0"]) == ["run/expert0"]
    assert names_of([run]) == ["run"]


def test_a_run_is_found_after_both_moved_and_missed_where_it_is_gone(tmp_path):
    run = make_run(tmp_path / "old" / "run")
    judge(tmp_path / "old" / "own", run)
    os.rename(tmp_path / "old", tmp_path / "new")
    found = gather(tmp_path / "new" / "own")
    assert found.config["expert"]["name"] == "resnet"
    assert found.part is None
    os.rename(tmp_path / "new" / "run", tmp_path / "gone")
    found = gather(tmp_path / "new" / "own")
    assert found.config == {}
    assert any("There is no config.json in ../run" in said for said in found.lacks)


def test_details_of_another_evaluation_are_left_out(tmp_path):
    folder = judge(tmp_path, tmp_path)
    assert gather(folder).checks == CHECKS
    write_results([CLEAN, PGD._replace(robust_accuracy=0.5)], folder)
    found = gather(folder)
    assert found.checks == ()
    assert any("evaluation.json is of another evaluation" in said for said in found.lacks)


def test_the_quickstart_says_what_it_checked(tmp_path):
    config = SimpleNamespace(
        evaluation=SimpleNamespace(checkpoint="latest"), mixture=SimpleNamespace(dual_weight=None)
    )
    make_run(tmp_path)  # an evaluation of before, of other rows
    trained = SimpleNamespace(experiment=config, finished=True)
    write_evaluation(RESULT, tmp_path, trained, AttackSettings())
    found = gather(tmp_path)
    assert found.checks == CHECKS
    assert verdict(found).trust.level == "good"
    assert found.examples is not None
    assert found.shown is None


@pytest.mark.parametrize(
    ("file", "name", "value", "said"),
    [
        ("evaluation.json", "checks", [{"title": "zero gradients"}], "evaluation.json is damaged"),
        ("evaluation.json", "checks", ["flag"], "evaluation.json is damaged"),
        ("run.json", "processes", [5], "run.json is damaged: processes"),
        ("run.json", "classes", "abc", "run.json is damaged: classes is no list"),
        ("transfer.json", None, [{"source": "one", "target": "two"}], "transfer.json is damaged"),
    ],
)
def test_fields_of_before_are_one_line(tmp_path, capsys, file, name, value, said):
    folder = make_run(tmp_path / "run")
    if name is not None:
        value = json.loads((folder / file).read_text()) | {name: value}
    (folder / file).write_text(json.dumps(value))
    assert main(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("damage", ["{", '{"processes": [5]}'])
def test_an_evaluation_stands_where_its_page_cannot_be_written(tmp_path, capsys, damage):
    folder = make_run(tmp_path / "run")
    (folder / "run.json").write_text(damage)
    report.offer([folder], written=True)
    told = capsys.readouterr()
    assert "no page was written: " in told.err
    assert "its run.json is damaged" in told.err
    assert told.out == f"see it: jaxmoe report {folder}\n"
