"""`jaxmoe study`: what runs, what it costs, what is not done twice, and the tables."""

import dataclasses
import re
import shutil
import types
from typing import ClassVar

import numpy as np
import pytest

from jaxmoe.attacks.cascade import CUSTOM
from jaxmoe.cli import main
from jaxmoe.commands import study_page
from jaxmoe.commands.arguments import load_from
from jaxmoe.commands.study import _Board
from jaxmoe.commands.study_report import (
    tables,
)
from jaxmoe.config import Arm, Study
from jaxmoe.reporting.results import read_examples
from jaxmoe.runs.study.cells import cells, experiment_of
from jaxmoe.runs.study.cost import Cost
from jaxmoe.runs.study.found import is_evaluated, read
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
            "single": Arm("one network", {{"mixture.experts": 1}}, costs=False),
            "at_m": Arm("AT-M", {{"recipe": "at_m"}}),
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
    """A study whose runs are done, in this process."""
    del standard_promotion
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JAXMOE_CACHE", str(folder / "cache"))
        (folder / "tiny.py").write_text(STUDY, encoding="utf-8")
        for arm, epochs in (("single", 1), ("at_m", 2)):
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
    assert said.splitlines()[1] == "2 runs; nothing is left to do"
    lines = [line for line in said.splitlines() if line.startswith("| ")]
    head, _, single, at_m = lines[:4]
    assert head.startswith(
        "| ε = 4/255, % | runs | n | clean | worst case | its 95 % interval | FGSM |"
    )
    assert at_m.startswith("| AT-M | 1 | 10 |")
    assert single.split(" | ")[7] == "–", "one network has no router to attack"
    assert at_m.split(" | ")[7] != "–"
    assert said.splitlines()[-1] == "see it: jaxmoe study tiny.py --runs runs/tiny --report"
    assert run("study tiny.py --report") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "see it: runs/tiny/report.html"
    page = (folder / "runs/tiny/report.html").read_text(encoding="utf-8")
    assert re.search(r"one network, the simplest arm, for \S+ times its gradients, in the", page)
    assert "jaxmoe report runs/tiny/seed0/at_m" in page
    assert ">AT-M, seed0<" in page
    for line in lines:
        for cell in line.strip("| ").split(" | "):
            assert f">{cell}<" in page or cell == "---", "every cell of the tables is on the page"
    assert {"study.md", "study.csv", "study.png"} <= {
        each.name for each in (folder / "runs/tiny").iterdir()
    }
    assert (folder / "runs/tiny/study.md").read_text(encoding="utf-8") in said


def test_the_page_of_a_study_leads_to_those_of_its_runs(folder, tmp_path):
    own = study()
    runs = tmp_path / "a run's tiny"
    shutil.copytree(folder / "runs/tiny", runs)
    (runs / "seed0/at_m/report.html").write_text("", encoding="utf-8")
    found = [read(own, cell, runs) for cell in cells(own)]
    path = study_page.write(own, found, {}, runs, 1, "jaxmoe study tiny.py --report")
    page = path.read_text(encoding="utf-8")
    assert path == runs / "report.html"
    assert 'href="seed0/at_m/report.html"' in page
    assert 'href="seed0/single/report.html"' not in page
    assert "<h1>a run&#39;s tiny</h1>" in page
    other = found[0].cell.block._replace(architecture="wide")
    both = dataclasses.replace(own, architectures={"": {}, "wide": {}})
    more = [each._replace(cell=each.cell._replace(block=other)) for each in found]
    page = study_page.write(both, [*found, *more], {}, runs, 1, "").read_text(encoding="utf-8")
    assert [f'id="part{i}"' in page for i in range(3)] == [True, True, False]
    assert "<h2>wide</h2>" in page


def test_the_command_of_the_page_has_all_that_the_study_was_given(folder, monkeypatch):
    monkeypatch.setattr("jaxmoe.plugins.loaded", lambda: ["my own.py"])
    options = types.SimpleNamespace(file="tiny.py", arms=["at_m"], jobs=2)
    board = types.SimpleNamespace(fields=["--run.log-every", "1"], runs="r", options=options)
    assert _Board._command(board) == (
        "jaxmoe study tiny.py --run.log-every 1 --runs r --arms at_m --jobs 2 "
        "--plugin 'my own.py' --report"
    )


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (["a/at_m"], "1 job is left; each has a log, runs/BLOCK/ARM.log"),
        (["a/at_m", "a/transfer"], "2 jobs are left (1 of them transfers); each has a log, "),
    ],
)
def test_a_study_says_how_much_is_left_and_where_its_logs_are(jobs, said):
    board = types.SimpleNamespace(runs="runs")
    assert _Board._left(board, dict.fromkeys(jobs)).startswith(said)


def test_a_study_that_is_stopped_writes_the_tables_of_what_is_done(folder, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    (folder / "runs/tiny/study.md").unlink(missing_ok=True)
    monkeypatch.setattr("jaxmoe.runs.study.runner.run_all", stop)
    assert run("study tiny.py") == 130
    told = capsys.readouterr()
    assert "| AT-M | 1 | 10 |" in told.out
    assert "goes on from runs/tiny" in told.err
    assert (folder / "runs/tiny/study.md").is_file()


def test_the_tables_figures_are_those_of_the_runs(folder):
    own = study()
    found = [read(own, cell, folder / "runs/tiny") for cell in cells(own)]
    text = tables(own, found, {("", "at_m"): Cost(4.0, 7.0, 2, 1.5, 3.0)}, folder / "runs/tiny", 3)
    assert "with compilation, 3 at once" in text
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()]
    (at_m,) = [run for run in found if run.cell.arm == "at_m"]
    for epsilon in own.epsilons:
        start = next(
            i for i, line in enumerate(lines) if line[0] == f"ε = {255 * epsilon:.0f}/255, %"
        )
        (row,) = [line for line in lines[start:] if line[0] == "AT-M"][:1]
        wanted = [at_m.row("clean", 0.0), at_m.row("worst-case", epsilon)]
        wanted += [at_m.row("fgsm", epsilon), at_m.row("pgd-r", epsilon)]
        found_here = [*row[3:5], *row[6:8]]
        assert found_here == [f"{100 * each.robust_accuracy:.1f}" for each in wanted]
    (cost,) = [line for line in lines if line[0] == "AT-M" and line[2:4] == ["4", "7"]]
    assert cost[2:5] == ["4", "7", "2"]
    assert cost[6:] == ["1.5", "0.50"]
    pairs = {run.cell.arm: run for run in found}
    start = next(i for i, line in enumerate(lines) if line[0] == "AT-M less …")
    line = next(line for line in lines[start:] if line[0] == "one network")
    apart = pairs["at_m"].worst(8 / 255).mean() - pairs["single"].worst(8 / 255).mean()
    assert line[3].startswith(f"{100 * apart:+.1f} (")


def test_what_each_example_withstood_is_kept(folder):
    cell = cells(study())[1]
    found = read(study(), cell, folder / "runs/tiny")
    index, raw = read_examples(folder / "runs/tiny" / cell.name)
    assert len(set(index.tolist())) == 10
    assert set(raw) == {("clean", 0.0)} | {
        (a, e) for a in ("fgsm", "pgd-r") for e in study().epsilons
    }
    for (attack, epsilon), right in raw.items():
        assert set(np.unique(right)) <= {0.0, 1.0}
        row = found.row(attack, epsilon)
        assert right.mean() == pytest.approx(row.accuracy_under_attack)
        assert found.correct[attack, epsilon].mean() == pytest.approx(row.robust_accuracy)


def test_a_cascade_of_ones_own_counts(folder, tmp_path):
    own = dataclasses.replace(study(), evaluation={"cascade": ("apgd-ce", "fab-t")})
    cell = cells(own)[1]
    shutil.copytree(folder / "runs/tiny", tmp_path / "tiny")
    file = tmp_path / "tiny" / cell.name / "examples.npz"
    with np.load(file) as found:
        arrays = dict(found)
    for name, value in (("attack", CUSTOM), ("epsilon", 4 / 255), ("correct", np.zeros(10))):
        arrays[name] = np.append(arrays[name], np.array(value)[None], axis=0)
    np.savez(file, **arrays)
    assert (CUSTOM, 4 / 255) not in read(study(), cell, tmp_path / "tiny").correct
    run_found = read(own, cell, tmp_path / "tiny")
    assert not run_found.correct[CUSTOM, 4 / 255].any()
    head = tables(own, [run_found], {}, tmp_path / "tiny", 1).splitlines()[0]
    assert "| apgd-ce + fab-t |" in head


def test_a_study_that_changed_is_not_mixed_with_what_is_there(folder, capsys):
    assert run("study tiny.py --training.batch-size 5") == 2
    line = capsys.readouterr().err
    assert line.startswith("jaxmoe: --runs: runs/tiny/seed0/")
    assert "holds a run with training.batch_size = 10" in line


def test_other_judging_judges_a_run_anew(folder):
    own, run_folder = study(), folder / "runs/tiny/seed0/at_m"
    assert is_evaluated(own, run_folder, ["fgsm", "pgd-r"])
    assert not is_evaluated(own, run_folder, ["fgsm", "pgd"])
    more_steps = dataclasses.replace(own, evaluation={"steps": 2, "no_checks": True})
    assert not is_evaluated(more_steps, run_folder, ["fgsm", "pgd-r"])
    assert not is_evaluated(dataclasses.replace(own, epsilons=(1 / 255,)), run_folder, ["fgsm"])


def test_what_runs_cost_is_listed(folder, capsys):
    assert run("study tiny.py --list") == 0
    first, *said = capsys.readouterr().out.splitlines()
    assert first == "counting what an epoch costs, a few seconds for each of 2 runs"
    assert said[0].startswith("seed0/single: done, 1 epochs, 1 gradients, 1 with what comes")
    assert said[1].startswith("seed0/at_m: done, 2 epochs, ")
    own, before = (int(said[1].split(", ")[place].split()[0]) for place in (2, 3))
    assert 4 < own <= 8
    assert before == own


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
        ({"arms": {"transfer": Arm("a")}}, "arms: 'transfer' is not accepted"),
        ({"arms": {"a": Arm("a")}, "seeds": (1, 1)}, "two blocks have one name"),
        (
            {
                "arms": {"a": Arm("a")},
                "architectures": {"x": {}, "x-y": {}},
                "folds": {"": {}, "y": {}},
            },
            "two blocks have one name",
        ),
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
        ("study tiny.py --arms at_x", "--arms: 'at_x' is no arm; expected some of single, at_m"),
        ("study tiny.py --list --expert.widht 4", "seed0/single: --expert.widht: no such field"),
        ("study tiny.py --run.seed 3", "--run.seed: not accepted; expected a field that all runs"),
        ("study tiny.py --training.epochs 3", "--training.epochs: not accepted"),
        ("study tiny.py --recipe at_m", "--recipe: not accepted"),
        ("study attacks.py", "attack: 'pdg' is no attack; did you mean pgd?"),
        ("study cascade.py", "attack: 'apgd-x' is no attack; did you mean apgd-"),
        ("study measures.py", "measures: 'trist' is not accepted; did you mean trust?"),
        ("study config.py", "has no function study\\(\\) that returns a Study"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, arguments, message):
    (folder / "config.py").write_text("def config(): pass\n", encoding="utf-8")
    judging = {
        "attacks.py": STUDY.replace('"fgsm"', '"pdg"'),
        "cascade.py": STUDY.replace('"no_checks": True', '"cascade": ("pgd", "apgd-x")'),
        "measures.py": STUDY.replace('"no_checks": True', '"measures": "trist"'),
    }
    for name, text in judging.items():
        (folder / name).write_text(text, encoding="utf-8")
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.replace("\\", "") in line


def test_jobs_wait_for_what_they_need_and_failures_are_told(tmp_path):
    said, ended = [], []

    def job(name, arguments, **order):
        return Job(name, arguments, tmp_path / f"{name}.log", **order)

    jobs = [
        job("first", ["--version"]),
        job("broken", ["nothing"]),
        job("after", ["--version"], needs=["first"]),
        job("never", ["--version"], needs=["broken"]),
        job("nor", ["--version"], needs=["never"]),
        job("trained", ["nothing"]),  # it failed when it was judged
        job("begun", ["--version"], needs=["trained"]),
        job("last", ["--version"], after=["broken", "after"]),
    ]
    failed = run_all(
        {each.name: each for each in jobs},
        2,
        done=lambda each: ended.append(each.name),
        is_met=lambda name: name == "trained",
        say=said.append,
    )
    assert sorted(failed) == ["broken", "never", "nor", "trained"]
    assert sorted(ended) == ["after", "begun", "first", "last"]
    assert ended.index("first") < ended.index("after") < ended.index("last")
    assert any(line.startswith("broken: failed: jaxmoe: no command 'nothing'") for line in said)
    assert "jaxmoe" in (tmp_path / "first.log").read_text(encoding="utf-8")


def test_a_job_that_cannot_start_ends_the_others(tmp_path, monkeypatch):
    class Sleeper(Job):
        stopped: ClassVar[list] = []

        def start(self, cores):
            if self.name == "second":
                raise OSError("no room")

        code = None

        def stop(self):
            self.stopped.append(self.name)

        def wait(self):
            pass

    jobs = {name: Sleeper(name, [], tmp_path / name) for name in ("first", "second")}
    with pytest.raises(OSError, match="no room"):
        run_all(jobs, 2, done=print, is_met=lambda name: False, say=print)
    assert Sleeper.stopped == ["first"]
