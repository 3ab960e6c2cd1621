"""`jaxmoe study`: what runs, what it costs, what is not done twice, and the tables."""

import dataclasses
import json

import numpy as np
import pytest

from jaxmoe.cli import main
from jaxmoe.commands.arguments import load_from
from jaxmoe.commands.study_report import tables
from jaxmoe.config import Arm, ATMConfig, MixtureConfig, StandardConfig, Study
from jaxmoe.reporting.results import read_examples
from jaxmoe.runs.study.cells import cells, experiment_of
from jaxmoe.runs.study.cost import Cost, costs, gradients_per_example
from jaxmoe.runs.study.found import is_evaluated, is_transferred, read
from jaxmoe.runs.study.runner import Job, run_all
from tests.commands.tiny import TINY, run

pytestmark = pytest.mark.usefixtures("standard_promotion")

STUDY = f"""
from jaxmoe.config import *
from jaxmoe.attacks import AttackSettings

def study():
    return Study(
        experiment={TINY!r},
        arms={{
            "standard": Arm("standard", costs=False),
            "at_m": Arm("AT-M", {{"recipe": "at_m"}}, start="standard"),
            "single": Arm("one network", {{"mixture.experts": 1}}, costs=False),
        }},
        gradients=6,
        attacks=("fgsm", "pgd-r"),
        epsilons=(4 / 255, 8 / 255),
        evaluation={{"steps": 1, "no_checks": True}},
        compared=("at_m",),
        simplest="single",
    )
"""


@pytest.fixture(scope="module")
def done(standard_promotion, tmp_path_factory):
    """A study whose three runs are done, in this process."""
    del standard_promotion
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JAXMOE_CACHE", str(folder / "cache"))
        (folder / "tiny.py").write_text(STUDY, encoding="utf-8")
        for arm, epochs in (("standard", 1), ("at_m", 2), ("single", 1)):
            assert run(f"study tiny.py --cell seed0/{arm} --training.epochs {epochs}") == 0
    return folder


@pytest.fixture
def folder(done, monkeypatch):
    monkeypatch.chdir(done)
    monkeypatch.setenv("JAXMOE_CACHE", str(done / "cache"))
    return done


def study():
    return load_from("tiny.py", "study", Study)


def test_a_finished_study_runs_nothing_and_prints_its_tables(folder, capsys, monkeypatch):
    monkeypatch.setattr(Job, "start", lambda *_: pytest.fail("it was done"))
    assert run("study tiny.py") == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("| ")]
    head, _, standard, at_m, single = lines[:5]
    assert head.startswith("| ε = 4/255, % | runs | n | clean | FGSM | PGD-R | worst case |")
    assert standard.startswith("| standard | 1 | 10 |")
    assert single.split(" | ")[5] == "–", "one network has no router to attack"
    assert at_m.split(" | ")[5] != "–"
    assert {"study.md", "study.csv", "study.png"} <= {
        each.name for each in (folder / "runs/tiny").iterdir()
    }
    assert (folder / "runs/tiny/study.md").read_text(encoding="utf-8") in said


def test_the_tables_figures_are_those_of_the_runs(folder):
    own = study()
    found = [read(cell, folder / "runs/tiny") for cell in cells(own)]
    text = tables(own, found, {("", "at_m"): Cost(4.0, 2)}, folder / "runs/tiny")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()]
    (at_m,) = [run for run in found if run.cell.arm == "at_m"]
    for epsilon in own.epsilons:
        start = next(
            i for i, line in enumerate(lines) if line[0] == f"ε = {255 * epsilon:.0f}/255, %"
        )
        (row,) = [line for line in lines[start:] if line[0] == "AT-M"][:1]
        wanted = [at_m.row("clean", 0.0), at_m.row("fgsm", epsilon), at_m.row("pgd-r", epsilon)]
        wanted.append(at_m.row("worst-case", epsilon))
        assert row[3:7] == [f"{100 * each.robust_accuracy:.1f}" for each in wanted]
    (cost,) = [line for line in lines if line[:2] == ["AT-M", "standard"]]
    assert cost[2:4] == ["4", "2"]
    pairs = {run.cell.arm: run for run in found}
    (line,) = [line for line in lines[-4:] if line[0] == "one network"]
    apart = pairs["at_m"].worst(8 / 255).mean() - pairs["single"].worst(8 / 255).mean()
    assert line[3].startswith(f"{100 * apart:+.1f} (")


def test_what_each_example_withstood_is_kept(folder):
    cell = cells(study())[1]
    found = read(cell, folder / "runs/tiny")
    raw = {
        (attack, e): right for attack, e, right in read_examples(folder / "runs/tiny" / cell.name)
    }
    assert set(raw) == {("clean", 0.0)} | {
        (a, e) for a in ("fgsm", "pgd-r") for e in study().epsilons
    }
    for (attack, epsilon), right in raw.items():
        assert set(np.unique(right)) <= {0.0, 1.0}
        row = found.row(attack, epsilon)
        assert right.mean() == pytest.approx(row.accuracy_under_attack)
        assert found.correct[attack, epsilon].mean() == pytest.approx(row.robust_accuracy)


def test_a_study_that_changed_is_not_mixed_with_what_is_there(folder, capsys):
    assert run("study tiny.py --training.batch-size 5") == 2
    assert "holds a run with training.batch_size = 10" in capsys.readouterr().err


def test_other_judging_judges_a_run_anew(folder):
    own, run_folder = study(), folder / "runs/tiny/seed0/at_m"
    assert is_evaluated(own, run_folder, ["fgsm", "pgd-r"])
    assert not is_evaluated(own, run_folder, ["fgsm", "pgd"])
    more_steps = dataclasses.replace(own, evaluation={"steps": 2, "no_checks": True})
    assert not is_evaluated(more_steps, run_folder, ["fgsm", "pgd-r"])
    assert not is_evaluated(dataclasses.replace(own, epsilons=(1 / 255,)), run_folder, ["fgsm"])


def test_arms_cost_the_same(folder, capsys):
    assert run("study tiny.py --list") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("seed0/standard: done, 1 epochs, 1 gradients")
    # Two steps and a last look, two thirds of a gradient and a third, and one to train: 2.7.
    assert said[1].startswith("seed0/at_m: done, 2 epochs, ")


def test_gradients_are_counted_of_attacks_and_losses():
    at_m = dataclasses.replace(TINY, recipe=ATMConfig())
    standard = dataclasses.replace(TINY, recipe=StandardConfig())
    one = dataclasses.replace(standard, mixture=MixtureConfig(experts=1))
    assert gradients_per_example(one, 8) == pytest.approx(1.0, abs=0.06)
    clean, attacked = (gradients_per_example(each, 8) for each in (standard, at_m))
    assert clean == pytest.approx(1.0, abs=0.1)
    steps = TINY.attack.steps
    # Input gradients of thin networks cost more than two thirds: the first layer is most of them.
    assert clean + steps * 0.6 < attacked < clean + (steps + 1) * 1.0
    dense = dataclasses.replace(at_m, mixture=MixtureConfig(experts=2, top_k=2))
    assert gradients_per_example(dense, 8) == pytest.approx(2 * attacked, rel=0.1)
    for gradients, epochs in ((10 * attacked, 10), (0.1, 1)):
        own = Study(at_m, {"a": Arm("a"), "b": Arm("b", costs=False)}, gradients=gradients)
        experiments = dict.fromkeys(cells(own), at_m)
        found = costs(own, experiments, 8)
        assert found["", "a"] == pytest.approx((epochs * attacked, epochs))
        assert found["", "b"].epochs == at_m.training.epochs


def test_a_transfer_matrix_is_of_all_arms(tmp_path):
    own = Study(TINY, {"a": Arm("a"), "b": Arm("b")}, transfer=("pgd",), epsilons=(0.1,))
    assert not is_transferred(own, tmp_path, ["a", "b"])
    rows = [{"target": f"x/{name}", "attack": "pgd", "epsilon": 0.1} for name in "ab"]
    (tmp_path / "transfer.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    assert is_transferred(own, tmp_path, ["a", "b"])
    assert not is_transferred(own, tmp_path, ["a", "b", "c"])
    more = dataclasses.replace(own, transfer=("pgd", "fgsm"))
    assert not is_transferred(more, tmp_path, ["a", "b"])


def test_runs_come_behind_the_ones_that_they_start_from():
    arms = {"b": Arm("b", start="a"), "a": Arm("a"), "c": Arm("c")}
    own = Study(TINY, arms, seeds=(0, 1), folds={"f0": {}, "f1": {}})
    names = [cell.name for cell in cells(own)]
    assert names[:3] == ["f0-seed0/a", "f0-seed0/b", "f0-seed0/c"]
    assert len(names) == 12
    assert [cell.name for cell in cells(own, ["b"])][:2] == names[:2]


def test_fields_of_arms_blocks_and_command_lines_reach_the_experiment(tmp_path):
    arms = {"a": Arm("a"), "b": Arm("b", {"recipe": "at_m", "threat.epsilon": 2 / 255}, start="a")}
    own = Study(
        TINY,
        arms,
        seeds=(7,),
        folds={"other": {"data.seed": 3}},
        architectures={"wide": {"expert.width": 8}},
    )
    cell = cells(own)[1]
    found = experiment_of(own, cell, tmp_path, ["--training.batch-size", "5"])
    assert (found.recipe.name, found.threat.epsilon) == ("at_m", 2 / 255)
    assert (found.data.seed, found.expert.width, found.run.seed) == (3, 8, 7)
    assert found.training.batch_size == 5
    assert found.run.directory == str(tmp_path / "wide-other-seed7/b")
    assert found.training.initialize_from == str(tmp_path / "wide-other-seed7/a")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": {}}, "arms: none"),
        ({"arms": {"a": Arm("a", start="b")}}, "arms.a.start: 'b' is no arm; expected one of a"),
        (
            {"arms": {"a": Arm("a", start="b"), "b": Arm("b", start="a")}},
            "arms.a.start: a → b → a has no end",
        ),
        ({"arms": {"x/y": Arm("a")}}, "expected a folder's name"),
        ({"arms": {"a": Arm("a")}, "compared": ("b",)}, "compared.0.: 'b' is no arm"),
        ({"arms": {"a": Arm("a")}, "seeds": ()}, "seeds: none"),
    ],
)
def test_a_study_that_cannot_be_is_one_line(fields, message):
    with pytest.raises(ValueError, match=message):
        Study(TINY, **fields)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("study none.py", "no such file"),
        ("study tiny.py --jobs 0", "--jobs: 0 is not accepted"),
        ("study tiny.py --arms at_x", "--arms: 'at_x' is no arm; expected some of standard, at_m"),
        ("study tiny.py --list --expert.widht 4", "seed0/standard: --expert.widht: no such field"),
        ("study config.py", "has no function study\\(\\) that returns a Study"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, arguments, message):
    (folder / "config.py").write_text("def config(): pass\n", encoding="utf-8")
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.replace("\\", "") in line


def test_jobs_wait_for_what_they_need_and_failures_are_told(tmp_path):
    said, ended = [], []

    def job(name, arguments, *needs):
        return Job(name, arguments, tmp_path / f"{name}.log", needs)

    jobs = [
        job("first", ["--version"]),
        job("broken", ["nothing"]),
        job("after", ["--version"], "first"),
        job("never", ["--version"], "broken"),
        job("nor", ["--version"], "never"),
    ]
    done = lambda each: ended.append(each.name)  # noqa: E731
    failed = run_all({each.name: each for each in jobs}, 2, done, said.append)
    assert sorted(failed) == ["broken", "never", "nor"]
    assert sorted(ended) == ["after", "first"]
    assert ended.index("first") < ended.index("after")
    assert any(line.startswith("broken: failed: jaxmoe: no command 'nothing'") for line in said)
    assert "jaxmoe" in (tmp_path / "first.log").read_text(encoding="utf-8")
