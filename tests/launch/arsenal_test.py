"""The tables of the arsenal, from results that stand where `evaluate` writes them."""

import json
import os

import pytest

from jaxmoe.attacks import ATTACKS
from launch.studies.arsenal import run as arsenal

ALL = [name for name in ATTACKS if name != "pgd-standing"]  # which is for labels of pixels


class Done:
    returncode = 0


def write(run, name, rows):
    folder = run / "arsenal" / name
    folder.mkdir(parents=True)
    fields = ("attack", "epsilon", "robust_accuracy", "gradient_evaluations")
    records = [dict(zip(fields, row, strict=True), norm="linf", n=23) for row in rows]
    (folder / "results.json").write_text(json.dumps(records))


def finish(runs):
    """Leaves what says that every evaluation is done."""
    options = arsenal.parse([*map(str, runs), "--data", "videos"])
    for run in runs:
        arguments = arsenal.EQUAL | {"all": ["--attacks", *ALL, "--queries", arsenal.QUERIES]}
        for name, given in arguments.items():
            folder = run / "arsenal" / name
            command = ["jaxmoe", *arsenal.command_of(run, folder, given, options)]
            (folder / "evaluation.json").write_text(json.dumps({"command": command}))


@pytest.fixture
def runs(tmp_path):
    runs = [tmp_path / name for name in ("at_m_0", "fold1/at_m", "j_tlat_0")]
    for place, run in enumerate(runs):
        run.mkdir(parents=True)
        (run / "config.json").touch()
        (run / "metrics.jsonl").touch()
        clean = ("clean", 0.0, 0.75, 0)
        pgd = [("pgd", 2 / 255, 0.5, 10), ("pgd", 4 / 255, 0.25 * place, 10)]
        write(run, "all", [clean, *pgd])
        for name in ("pgd", "j-tlga", "enumerated-route"):
            write(run, name, [clean, ("auto-attack-custom", 4 / 255, 0.5, 700.4)])
        write(run, "auto-attack", [clean, ("auto-attack", 4 / 255, 0.25, 800)])
    finish(runs)
    return runs


def test_lines_are_means_over_the_runs_of_a_recipe(runs):
    lines = arsenal.all_attacks(runs).splitlines()
    assert lines[0] == "| % | gradients | at_m | j_tlat |"
    assert lines[2] == "| clean | 0 | 75.0 | 75.0 |"
    assert lines[3] == "| pgd | 10 | 50.0 / 12.5 | 50.0 / 50.0 |"
    assert lines[-1] == "ε = 2 / 4 /255, linf, batches of 25. at_m: n = 23 + 23; j_tlat: n = 23."


def test_adversaries_stand_beside_their_cost(runs):
    lines = arsenal.equal_cost(runs).splitlines()
    assert lines[0] == "|  | at_m % | gradients | j_tlat % | gradients |"
    assert "| pgd | 50.0 | 700 | 50.0 | 700 |" in lines
    assert "| auto-attack | 25.0 | 800 | 25.0 | 800 |" in lines


def test_what_is_done_is_not_done_again(runs, monkeypatch, capsys):
    monkeypatch.setattr(arsenal.subprocess, "run", lambda *_, **__: pytest.fail("evaluated"))
    monkeypatch.setattr("sys.argv", ["arsenal.py", *map(str, runs), "--data", "videos"])
    arsenal.main()
    assert "| pgd | 10 |" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["trained again", "other radii"])
def test_what_was_done_of_another_run_or_command_is_done_anew(runs, monkeypatch, change):
    asked = []
    monkeypatch.setattr(
        arsenal.subprocess, "run", lambda command, check: asked.append(command) or Done
    )
    given = ["arsenal.py", str(runs[1]), "--data", "videos", "--only", "all"]
    if change == "trained again":
        later = (runs[1] / "arsenal" / "all" / "evaluation.json").stat().st_mtime + 10
        os.utime(runs[1] / "metrics.jsonl", (later, later))
    else:
        given += ["--epsilons", "1/255"]
    monkeypatch.setattr("sys.argv", given)
    arsenal.main()
    assert len(asked) == 1


def test_a_command_names_every_attack(runs, monkeypatch):
    asked = []
    monkeypatch.setattr(
        arsenal.subprocess, "run", lambda command, check: asked.append(command) or Done
    )
    (runs[0] / "arsenal" / "all" / "evaluation.json").unlink()
    monkeypatch.setattr("sys.argv", ["arsenal.py", str(runs[0]), "--data", "videos"])
    arsenal.main()
    (command,) = asked
    assert set(ALL) < set(command)
    assert command[command.index("--data.directory") + 1] == "videos"


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        arsenal.parse([str(tmp_path), "--data", "videos"])
    assert "has no config.json; expected the folder of a trained run" in capsys.readouterr().err
