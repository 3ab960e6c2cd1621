"""The launcher's folds and its table; what it starts has its own tests."""

import csv
import itertools
import json

import pytest

from jaxmoe.commands.arguments import load_config
from jaxmoe.config import validate
from jaxmoe.overrides import apply_overrides
from launch.studies.ut_interaction import run as launcher
from tests.launch.fakes import finish


def test_folds_part_the_sequences(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    lines = [f"hug/seq{i:02}_x.avi,hug,train" for i in range(1, 21)]
    (data / "manifest.csv").write_text("\n".join(["path,label,split", *lines]))
    tested = []
    for seed in range(5):
        with launcher._write_fold(data, tmp_path, seed).open() as file:
            tested.append(
                [int(r["path"][7:9]) for r in csv.DictReader(file) if r["split"] == "test"]
            )
    assert tested[0] == [5, 10, 15, 20]
    assert sorted(itertools.chain(*tested)) == list(range(1, 21))


def test_videos_without_a_sequence_are_one_line(tmp_path):
    (tmp_path / "manifest.csv").write_text("path,label,split\nhug/x.avi,hug,train\n")
    with pytest.raises(SystemExit, match=r"hug/x\.avi .* no sequence"):
        launcher._write_fold(tmp_path, tmp_path, 0)


def test_the_table_has_the_means(tmp_path):
    for number, recipe in enumerate(launcher.RECIPES):
        for seed in (0, 1):
            run = tmp_path / f"{recipe}_{seed}"
            run.mkdir()
            rows = [("clean", 0, 0.9), ("pgd", 2 / 255, 0.5), ("pgd", 4 / 255, 0.1 * number)]
            if not launcher.RECIPES[recipe].attacks:
                rows += [("pgd-r", 2 / 255, 0.8), ("pgd-r", 4 / 255, 0.7)]
            records = [
                {"attack": a, "epsilon": e, "robust_accuracy": r - 0.1 * seed, "n": 20 + seed}
                for a, e, r in rows
            ]
            (run / "results.json").write_text(json.dumps(records))
            finish(run, 60.0 * (1 + seed))
    recipes = ["standard", "at_m", "single", "at_s"]
    lines = launcher.tables(tmp_path, [0, 1], recipes).splitlines()
    assert lines[0] == "| % | standard | at_m | single | at_s |"
    assert lines[2] == "| clean | 85.0 | 85.0 | 85.0 | 85.0 |"
    assert lines[3] == "| pgd | 45.0 / -5.0 | 45.0 / 5.0 | 45.0 / 35.0 | 45.0 / 45.0 |"
    assert lines[4] == "| pgd-r | 75.0 / 65.0 | 75.0 / 65.0 | – | – |", "one network has no router"
    assert lines[5] == "| minutes | 1.5 | 1.5 | 1.5 | 1.5 |"
    assert lines[6] == "| spread | 5.0 | 5.0 | 5.0 | 5.0 |"
    assert "seeds 0, 1, n = 20 + 21 clips" in lines[8]


def test_every_run_is_possible_and_one_network_costs_what_the_mixture_does():
    gradients = {}
    for recipe, line in launcher.RECIPES.items():
        config = load_config(str(launcher.CONFIGS / f"ut_interaction_{line.config}.py"))
        given = ["--data.directory", "here", *line.overrides]
        given += ["--training.initialize-from", "a run"] if line.start else []
        experiment = apply_overrides(config, given)
        validate(experiment)
        training = experiment.training
        epochs = 0 if line.start else training.shared_epochs + 4 * training.dense_epochs
        gradients[recipe] = epochs + training.epochs * (1 + experiment.attack.steps)
        if not line.start:
            gradients[recipe] = epochs + training.epochs
    assert gradients["single"] == gradients["standard"] == 112
    assert gradients["at_s"] == gradients["at_m"] == 300


def test_the_run_that_a_recipe_starts_from_is_trained_first(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(launcher, "_jaxmoe", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(launcher, "tables", lambda *_: "")
    (tmp_path / "manifest.csv").write_text("path,label,split\nhug/seq01.avi,hug,train\n")
    given = ["--data", str(tmp_path), "--runs", str(tmp_path), "--seeds", "3", "--recipes", "at_s"]
    monkeypatch.setattr("sys.argv", ["ut_interaction.py", *given])
    launcher.main()
    single, at_s = (str(tmp_path / name) for name in ("single_3", "at_s_3"))
    directories = [a[a.index("--run.directory") + 1] for a in asked if a[0] == "train"]
    assert directories == [single, at_s]
    assert asked[1][asked[1].index("--training.initialize-from") + 1] == single
    assert asked[2] == ("evaluate", at_s, "--attacks", "fgsm", "pgd", "mi-fgsm", "tla-m")
