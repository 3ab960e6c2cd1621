"""`jaxmoe evaluate`: files, cascades, resuming, and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest

from jaxmoe.cli import main
from jaxmoe.commands.arguments import hold_output
from jaxmoe.config import to_dict
from jaxmoe.runs.folder import hold_for_training
from jaxmoe.training import Checkpoints
from tests.commands.tiny import TINY, refused, run


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--attacks pgd j-tlgaa", ["j-tlgaa", "did you mean j-tlga?"]),
        ("--epsilons -0.1", ["--epsilons", "-0.1", "≥ 0"]),
        ("--epsilons 8/2x5", ["--epsilons", "8/2x5"]),
        ("--epsilons 8", ["--epsilons", "8", "such as 8/255"]),
        ("--norm l2", ["--norm", "l2 needs --epsilons"]),
        ("--steps 0", ["attack.steps", "0", "at least 1"]),
        ("--batch-size 0", ["--batch-size", "0"]),
        ("--seed -1", ["--seed", "-1"]),
        ("--epsilon 8/255", ["--epsilon", "--epsilons"]),
        ("--checkpoint first", ["--checkpoint", "first", "latest"]),
    ],
)
def test_evaluate_refuses_bad_options(options, said, trained, folder, capsys):
    line = refused(f"evaluate run {options}", folder, capsys)
    for part in said:
        assert part in line


def test_evaluate_refuses_a_checkpoint_of_another_model(trained, folder, capsys):
    other = dataclasses.replace(TINY, expert=dataclasses.replace(TINY.expert, width=8))
    (trained / "config.json").write_text(json.dumps(to_dict(other)))
    assert main(["data", "config.py"]) == 0  # prepares the clips, which may be written
    capsys.readouterr()
    line = refused("evaluate run", folder, capsys)
    assert "checkpoint" in line
    assert "another model" in line


def test_evaluate_writes_what_it_says(trained, folder, capsys):
    assert run("evaluate run --attacks fgsm --epsilons 8/255 --seed 3") == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "fgsm" in output.out
    assert output.out.endswith("\nsee it: jaxmoe report run\n")
    for name in ("results.json", "results.csv", "results.md", "robust_accuracy.png"):
        assert (trained / name).stat().st_size
    rows = json.loads((trained / "results.json").read_text())
    assert [row["attack"] for row in rows] == ["clean", "fgsm", "worst-case"]
    for row in rows:
        assert 0 <= row["robust_accuracy"] <= 1
        assert (row["n"], row["seed"]) == (10, 3)
        assert row["seconds"] >= 0
    assert rows[1]["epsilon"] == 8 / 255
    assert rows[1]["gradient_evaluations"] == 1
    details = json.loads((trained / "evaluation.json").read_text())
    assert details["gflops"]["ratio"] < 1
    names = {check["name"] for check in details["checks"]}
    assert {"same answer in any batch", "better than a guess", "zero gradients"} <= names
    with np.load(trained / "examples.npz", allow_pickle=False) as kept:
        accuracies = np.mean(kept["prediction"] == kept["label"], axis=1)
        np.testing.assert_allclose(accuracies, [row["accuracy_under_attack"] for row in rows[:2]])
        assert kept["size"].shape == (2, 10, 4)
        assert kept["weights"].shape[:2] == kept["expert"].shape == (2, 10)
    with np.load(trained / "shown.npz", allow_pickle=False) as shown:
        assert shown["clean"].shape[1:] == shown["adversarial"].shape[1:] == (4, 16, 16, 3)
        assert 1 <= len(shown["why"]) <= 12
    for name in ("examples.npz", "shown.npz"):
        assert name in output.out

    arguments = "--attacks pgd --alpha 0 --norm l2 --epsilons 8 --output elsewhere --no-checks"
    assert run(f"evaluate run {arguments}") == 0
    assert json.loads((trained / "results.json").read_text()) == rows
    details = json.loads((folder / "elsewhere" / "evaluation.json").read_text())
    assert (details["settings"]["alpha"], details["checkpoint"]) == (0, "latest")
    still = json.loads((folder / "elsewhere" / "results.json").read_text())[1]
    assert (still["attack"], still["norm"], still["epsilon"]) == ("pgd", "l2", 8)
    assert np.ptp(still["loss_trace"]) == 0  # steps of length 0


def test_few_clips_are_judged_on_request(trained, capsys):
    assert run("evaluate run --attacks fgsm --no-checks --limit 5 --report") == 0
    said = capsys.readouterr().out
    assert "test examples: 5 of 10, drawn by class, seed 0" in said
    assert said.endswith("\nsee it: run/report.html\n")
    assert "5 test examples" in (trained / "report.html").read_text(encoding="utf-8")
    rows = json.loads((trained / "results.json").read_text())
    assert {row["n"] for row in rows} == {5}
    assert "5 of 10, drawn by class" in (trained / "results.md").read_text()
    assert run("evaluate run --attacks fgsm --no-checks --limit 11") == 2
    assert "--limit: 11; expected 1 to 10" in capsys.readouterr().err


@pytest.mark.nightly
def test_evaluate_takes_a_cascade_gradients_and_keeps_clips_and_goes_on(
    trained, folder, capsys, monkeypatch
):
    from jaxmoe.evaluation import Programs

    command = "evaluate run --attacks fgsm --cascade pgd --gradient hard soft --epsilons 0.01"
    attack, taken = Programs.attack, []

    def stopped(self, *arguments):
        taken.append(arguments[0])
        if taken == ["fgsm", "fgsm", "pgd"]:
            raise KeyboardInterrupt
        return attack(self, *arguments)

    monkeypatch.setattr(Programs, "attack", stopped)
    assert run(f"{command} --save-examples") == 130
    output = capsys.readouterr()
    assert "the same command goes on from run/evaluation.journal" in output.err
    assert "the rows that are done are in run/results.json" in output.err
    assert "fgsm ε = 0.01 linf: robust " in output.out
    rows = json.loads((trained / "results.json").read_text())
    assert [row["attack"] for row in rows] == ["clean", "fgsm"]
    assert "Not finished: 2 of 3 rows" in (trained / "results.md").read_text()
    monkeypatch.setattr(Programs, "attack", attack)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("jaxmoe.evaluation.suite.suite.masking_checks", stop)
        assert run(f"{command} --save-examples") == 130
    output = capsys.readouterr()
    assert "all rows are in run/results.json, without checks" in output.err
    assert "worst-case" in output.out  # the table
    rows = json.loads((trained / "results.json").read_text())
    assert len(rows) == len((trained / "results.csv").read_text().splitlines()) - 1 == 4
    text = (trained / "results.md").read_text()
    assert "No check for masked gradients ran" in text
    assert "Not finished" not in text
    assert (trained / "margins.png").is_file()

    assert run(f"{command} --save-examples --no-checks") == 0
    output = capsys.readouterr().out
    assert "going on from run/evaluation.journal" in output
    assert "auto-attack-custom" in output
    assert "No check for masked gradients ran" in output
    assert "No check for masked gradients ran" in (trained / "results.md").read_text()
    again = json.loads((trained / "results.json").read_text())
    timed = {"seconds": 0.0, "compile_seconds": 0.0}
    assert [row | timed for row in again] == [row | timed for row in rows]
    details = json.loads((trained / "evaluation.json").read_text())
    assert details["settings"]["gradient"] == ["hard", "soft"]
    assert [stage["attack"] for stage in details["cascades"]] == ["pgd"]
    assert not (trained / "evaluation.journal").exists()
    kept = [np.load(file) for file in (trained / "examples").rglob("*.npz")]
    assert kept
    assert all(clips["x_adv"].shape[1:] == (4, 16, 16, 3) for clips in kept)


def test_numbers_that_autoattack_does_not_take_are_named(trained, monkeypatch, capsys):
    monkeypatch.setattr("jaxmoe.commands.evaluate._run_and_write", lambda *_, **__: None)
    assert run(f"evaluate {trained} --attacks pgd auto-attack --steps 5 --queries 10") == 0
    said = "auto-attack: with AutoAttack's own numbers; --steps --queries for other attacks alone"
    assert said in capsys.readouterr().out
    assert run(f"evaluate {trained} --attacks pgd --cascade square --queries 10 --no-checks") == 0
    assert "own numbers" not in capsys.readouterr().out


def test_evaluates_help_leads_to_the_list_of_attacks(capsys):
    assert main(["evaluate", "--help"]) == 0
    assert "`jaxmoe attacks`" in capsys.readouterr().out


def test_other_clips_than_the_run_was_trained_on_are_refused(trained, capsys):
    splits = {"train": "0", "validation": "0", "test": "0"}
    (trained / "run.json").write_text(json.dumps({"splits": splits}))
    assert main(["evaluate", str(trained)]) == 2
    assert "holds a run with other train examples" in capsys.readouterr().err


def test_a_run_that_was_stopped_says_so(trained, monkeypatch, capsys):
    monkeypatch.setattr("jaxmoe.commands.evaluate._run_and_write", lambda *_, **__: None)
    assert main(["evaluate", str(trained)]) == 0
    assert "stopped before the end" not in capsys.readouterr().out
    monkeypatch.setattr(Checkpoints, "position", lambda *_: {"finished": False})
    assert main(["evaluate", str(trained)]) == 0
    assert f"{trained} was stopped before the end of its training" in capsys.readouterr().out
    with hold_for_training(trained):
        assert main(["evaluate", str(trained)]) == 0
    said = capsys.readouterr().out
    assert f"{trained} is still training; its latest checkpoint so far is judged" in said
    assert "before the end" not in said


def test_two_evaluations_do_not_write_into_one_folder(trained, folder, monkeypatch, capsys):
    monkeypatch.setattr("jaxmoe.commands.evaluate._run_and_write", lambda *_, **__: None)
    assert main(["data", "config.py"]) == 0
    capsys.readouterr()
    with hold_output(trained):
        line = refused(f"evaluate {trained}", folder, capsys)
        assert f"--output: {trained} is being written into by another process" in line
        assert main(["evaluate", str(trained), "--output", "elsewhere"]) == 0


def test_lists_are_parted_by_commas_or_spaces(trained, monkeypatch, capsys):
    plans = []
    monkeypatch.setattr(
        "jaxmoe.commands.evaluate._run_and_write", lambda _, __, plan, **___: plans.append(plan)
    )
    for attacks, epsilons in (
        ("--attacks pgd,tlga-r", "--epsilons 2/255,4/255"),
        ("--attacks=pgd,tlga-r", "--epsilons=2/255,4/255"),
        ("--attacks pgd, tlga-r", "--epsilons 2/255 , 4/255"),
        ("--attacks pgd tlga-r", "--epsilons 2/255 4/255"),
    ):
        words = f"evaluate {trained} {attacks} {epsilons} --gradient hard,soft".split()
        assert main(words) == 0
    assert (
        main(["evaluate", str(trained), "--attacks", "pgd tlga-r", "--epsilons", "2/255 4/255"])
        == 0
    )
    for plan in plans:
        assert plan.attacks == ["pgd", "tlga-r"]
        assert plan.epsilons == [2 / 255, 4 / 255]
    assert [plan.gradients for plan in plans[:4]] == [["hard", "soft"]] * 4
    capsys.readouterr()
    assert main(["evaluate", str(trained), "--attacks", "pgd,tlgar"]) == 2
    assert "tlgar" in capsys.readouterr().err
