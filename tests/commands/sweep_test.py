"""`jaxmoe sweep`: grids of ε on test clips and of numbers on validation clips."""

import json

import numpy as np
import pytest

from jaxmoe.cli import main


def test_the_commands_know_every_number_of_a_grid():
    from jaxmoe.commands import evaluate
    from jaxmoe.evaluation.suite import grid

    assert evaluate.NUMBERS == grid.NUMBERS


def test_sweep_runs_a_grid_of_epsilons_on_the_test_clips_and_of_numbers_on_validation(trained):
    sweep = ["sweep", str(trained), "--attacks", "fgsm", "pgd", "--epsilons", "0", "0.5"]
    assert main(sweep) == 0
    found = json.loads((trained / "sweep" / "sweep.json").read_text())
    assert (found["split"], found["compilations"]) == ("test", {"fgsm": 1, "pgd": 1})
    names = {check["name"] for check in found["checks"]}
    assert names == {"same answer in any batch", "outputs are logits", "better than a guess"}
    setting = [(row["attack"], row["epsilon"]) for row in found["rows"]]
    assert setting == [("fgsm", 0), ("fgsm", 0.5), ("pgd", 0), ("pgd", 0.5)]
    assert found["rows"][0]["robust_accuracy"] == found["clean_accuracy"]
    assert (trained / "sweep" / "sweep.png").stat().st_size > 0
    assert not (trained / "sweep" / "evaluation.journal").exists()
    output = str(trained / "numbers")
    assert (
        main([*sweep[:3], "pgd", "--lambdas", "0", "--alphas", "0", "1", "--output", output]) == 0
    )
    found = json.loads((trained / "numbers" / "sweep.json").read_text())
    assert found["split"] == "validation"
    assert [row["alpha"] for row in found["rows"][:2]] == [0, 1]
    assert {row["n"] for row in found["rows"]} == {10}
    assert len(found["rows"]) == 5 * 2  # of the default grid of ε


def test_numbers_that_are_not_finite_are_one_line_in_every_command(trained, monkeypatch, capsys):
    from jaxmoe.evaluation.engine.guards import check_finite_outputs

    def broken(*_, **__):
        batch = {"index": np.arange(2), "valid": np.ones(2, bool)}
        check_finite_outputs(np.zeros(2, bool), batch, "tla-m", 0.1)

    monkeypatch.setattr("jaxmoe.evaluation.sweep_grid", broken)
    assert main(["sweep", str(trained), "--attacks", "tla-m", "--lam", "1e38"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "jaxmoe: tla-m at ε = 0.1: outputs that are not finite on the examples with index [0, 1]"
    ]


def test_a_sweep_refuses_a_number_before_it_runs_any(trained, monkeypatch, capsys):
    monkeypatch.setattr("jaxmoe.evaluation.sweep_grid", lambda *_, **__: pytest.fail("ran"))
    assert main(["sweep", str(trained), "--attacks", "tla-m", "--lam", "0", "-1"]) == 2
    assert "attack.lam: -1.0 is not a finite number" in capsys.readouterr().err
