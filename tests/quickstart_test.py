"""`jaxmoe quickstart`: its runs are possible and cost the same; what its table says."""

import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

from jaxmoe.cli import main
from jaxmoe.config import validate
from jaxmoe.evaluation import Check, Row, SuiteResult
from jaxmoe.evaluation.measures.specialization import specialization
from jaxmoe.mixture import PartScores
from jaxmoe.reporting.page import gather
from jaxmoe.runs import quickstart
from jaxmoe.runs import run as runs
from tests.reporting.page.folders import make_run


@pytest.mark.parametrize("task", quickstart.TASKS)
def test_every_run_is_possible_and_starts_from_one_before_it(task):
    seen = set()
    for wanted in quickstart.TASKS[task].experiments(pathlib.Path("runs")).values():
        validate(wanted)
        t = wanted.training
        assert {t.initialize_from, *(t.initialize_experts_from or ())} <= seen | {None}
        seen.add(wanted.run.directory)


@pytest.mark.parametrize("task", ["video", "image"])
def test_one_network_takes_as_many_gradients_as_the_mixture(task):
    runs = quickstart.TASKS[task].experiments(pathlib.Path("runs"))

    def cost(title):
        e = runs[title]
        t = e.training
        clean = t.shared_epochs + t.dense_epochs + t.specialize_epochs + t.epochs
        epochs = t.epochs if t.initialize_from else clean
        return epochs, e.data, e.attack, t.batch_size, e.expert, e.optimizer

    assert cost("single") == cost("mixture")
    if "AT-M" in runs:
        assert cost("AT-S") == cost("AT-M")
        assert runs["AT-M"].training.initialize_from == runs["mixture"].run.directory
    else:
        assert cost("AT-S")[0] == 3 * cost("J-TLAT")[0], "it has three phases"
    assert runs["single"].mixture.experts == runs["AT-S"].mixture.experts == 1
    assert runs["AT-S"].training.initialize_from == runs["single"].run.directory


def test_the_table_has_dashes_guesses_and_the_worst_case_after_all_attacks():
    figures = {
        "single": {"clean": 0.5, "PGD-10": 0.1, "worst-case": 0.05},
        "mixture": {"clean": 0.75, "PGD-10": 0.25, "TLGA-R-10": 0.7, "worst-case": 0.125},
    }
    lines = quickstart._table(figures, "accuracy", {"chance": 0.1})
    assert [line.split() for line in lines] == [
        ["accuracy", "%", "single", "mixture"],
        ["clean", "50.0", "75.0"],
        ["PGD-10", "10.0", "25.0"],
        ["TLGA-R-10", "–", "70.0"],
        ["worst-case", "5.0", "12.5"],
        ["chance", "10.0", "10.0"],
    ]


def test_guesses_are_chance_and_the_largest_class():
    labels = np.array([0, 0, 0, 1, 2])
    guesses = quickstart._guesses({"mixture": SimpleNamespace(label=labels)})
    assert guesses == {"chance": 1 / 3, "largest class": 3 / 5}
    assert quickstart._guesses({"gate": SimpleNamespace(label=np.zeros((2, 4, 4)))}) == {}


def test_every_mixture_has_a_sentence_on_what_its_router_decides():
    right = np.eye(2, 40, dtype=np.float32) + np.array([[1.0], [0.0]])
    parts = PartScores(
        np.minimum(right, 1),
        np.minimum(right, 1),
        np.array([np.arange(40) % 2, 1 - np.arange(40) % 2]),
        np.zeros(40, np.float32),
    )
    found = specialization(parts, np.ones(40, np.float32), np.zeros(40, int))
    results = {
        "single": SimpleNamespace(specialization=None),
        "AT-M": SimpleNamespace(specialization=found),
    }
    (line,) = quickstart._decisions(results)
    assert line.startswith("AT-M: The router decides: a random route costs 48.8 points")


def test_checks_lie_beside_the_results(tmp_path, monkeypatch):
    task = quickstart.TASKS["image"]
    wanted = quickstart.TASKS["image"].experiments(tmp_path)["single"]
    folder = make_run(tmp_path / "single")  # an evaluation of before
    monkeypatch.setattr(runs, "train", lambda *_: folder)
    monkeypatch.setattr(runs, "load", lambda _: SimpleNamespace(experiment=wanted, finished=True))
    clean = Row("clean", 0.0, "linf", 0.5, 0.5, 2, 0, None, None, 0, 0.5, 2.0)
    checks = (Check("zero gradients", 0.0, "pass", "None was zero."),)
    correct = {("clean", 0.0): np.array([1, 0])}
    result = SuiteResult((clean,), correct, np.arange(2), np.array([0, 1]), checks, {}, {})
    monkeypatch.setattr(quickstart, "_evaluate", lambda *_: result)
    monkeypatch.setattr("jaxmoe.reporting.plot_bars", lambda *_: None)
    one = task._replace(experiments=lambda _: {"single": wanted})
    progress = SimpleNamespace(say=lambda _: None)
    assert quickstart.run(one, str(tmp_path), progress) == [folder]
    found = gather(folder)
    assert found.checks == checks
    assert found.details["checkpoint"] == wanted.evaluation.checkpoint
    assert found.examples is not None
    assert found.shown is None


def test_the_command_ends_with_where_to_see_it(tmp_path, monkeypatch, capsys):
    folders = [make_run(tmp_path / name) for name in ("single", "standard")]
    monkeypatch.setattr(quickstart, "run", lambda *_: folders)
    assert main(["quickstart", "--directory", str(tmp_path)]) == 0
    named = " ".join(map(str, folders))
    assert capsys.readouterr().out.splitlines()[-1] == f"see it: jaxmoe report {named}"
    assert main(["quickstart", "--directory", str(tmp_path), "--report"]) == 0
    page = tmp_path / "report.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"see it: {page}"
    assert "single less standard" in page.read_text(encoding="utf-8")
