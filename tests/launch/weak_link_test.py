"""The weak-link table: both forms, means over a recipe's runs, who is weaker."""

import pytest

from jaxmoe.evaluation import Row
from jaxmoe.reporting import write_results
from launch import weak_link as launcher


def row(attack, epsilon, accuracy, isolated=None):
    return Row(
        attack=attack,
        epsilon=epsilon,
        norm="linf",
        robust_accuracy=accuracy,
        accuracy_under_attack=accuracy,
        n=20,
        seed=0,
        steps=10,
        restarts=1,
        gradient_evaluations=10,
        seconds=1.0,
        compile_seconds=1.0,
        isolated_accuracy=isolated,
    )


def test_forms_are_told_apart_and_runs_of_a_recipe_are_averaged(tmp_path):
    for seed in (0, 1):
        rows = [
            row("clean", 0.0, 0.9),
            # End to end the router is weaker, isolated the experts are.
            row("pgd-r", 8 / 255, 0.3 + 0.1 * seed, 0.7),
            row("pgd-e", 8 / 255, 0.6, 0.2 + 0.1 * seed),
        ]
        write_results(rows, tmp_path / f"rt_er_{seed}")
    runs = [tmp_path / "rt_er_0", tmp_path / "rt_er_1"]
    options = launcher.parse([str(run) for run in runs])
    text = launcher.table(options.runs, options.router, options.experts)
    line = "| rt_er | 8/255 | 90.0 | 35.0 | 60.0 | 70.0 | 25.0 | router | experts |"
    assert line in text.splitlines()
    assert "n = 20 + 20" in text


def test_runs_without_the_attacks_are_refused(tmp_path, capsys):
    write_results([row("clean", 0.0, 0.9)], tmp_path / "a_0")
    for arguments, said in (
        ([str(tmp_path / "b_0")], "no results.json"),
        ([str(tmp_path / "a_0")], "not evaluated under pgd-r"),
    ):
        with pytest.raises(SystemExit):
            launcher.parse(arguments)
        assert said in capsys.readouterr().err
