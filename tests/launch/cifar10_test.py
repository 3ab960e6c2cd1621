"""The CIFAR-10 launcher: which runs start from which, and the tables' means."""

import json
import pathlib
import types

import jax
import numpy as np
import pytest

from jaxmoe.commands.arguments import load_config
from jaxmoe.config import Experiment, to_dict
from jaxmoe.mixture import from_functions
from jaxmoe.overrides import apply_overrides
from jaxmoe.reporting import write_results
from launch.studies.cifar10 import run as launcher
from tests.launch.fakes import row


@pytest.fixture
def options(tmp_path):
    (tmp_path / "images.npz").touch()
    arguments = ["--data", str(tmp_path / "images.npz"), "--runs", str(tmp_path), "--seeds", "4"]
    return launcher.parse(arguments)


def test_runs_start_from_those_before_them(options, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(launcher, "jaxmoe", lambda *arguments: commands.append(arguments))
    seen = set()
    for name, line in launcher.LINES.items():
        assert {line.start, line.standard} - {None} <= seen
        launcher.train(line, 4, tmp_path / f"{name}_4", options)
        seen.add(name)
    assert all(pathlib.Path(command[1]).is_file() for command in commands)
    at, jtdmoe = (
        commands[list(launcher.LINES).index("at")],
        commands[list(launcher.LINES).index("jtdmoe")],
    )
    assert at[at.index("--training.initialize-from") + 1] == str(tmp_path / "standard_4")
    assert jtdmoe[jtdmoe.index("--training.initialize-from") + 1] == str(tmp_path / "rt_er_6_4")
    field = "--training.initialize-standard-from"
    assert jtdmoe[jtdmoe.index(field) + 1] == str(tmp_path / "standard_4")
    assert field not in at


def test_an_evaluation_under_other_attacks_is_done_again(tmp_path):
    run = tmp_path / "at_0"
    _evaluated(run, 0.5, launcher.ATTACKS)
    assert not launcher.evaluated(run, launcher.ATTACKS)  # it was stopped before its last file
    (run / "evaluation.json").touch()
    assert launcher.evaluated(run, launcher.ATTACKS)
    assert not launcher.evaluated(run, launcher.STRONGEST)


def test_the_table_has_means_over_the_seeds(tmp_path):
    for number, (name, line) in enumerate(launcher.LINES.items()):
        for seed in (0, 1):
            _described(tmp_path / f"{name}_{seed}", line)
            if line.attacks:
                value = 0.4 + 0.05 * number - 0.02 * seed
                _evaluated(tmp_path / f"{name}_{seed}", value, line.attacks)
    for name in launcher.CURVES:
        for alpha in launcher.ALPHAS:
            for seed in (0, 1):
                attacks = launcher.STRONGEST if alpha == launcher.COMPARED else launcher.ATTACKS
                _evaluated(launcher.point(name, alpha, seed, tmp_path), alpha, attacks)
    lines = launcher.table(tmp_path, [0, 1], list(launcher.LINES)).splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines[:-2]}
    standard = [cell.strip() for cell in cells["standard"]]
    assert standard == ["49.0 ± 1.4"] * 3 + ["24.5 ± 0.7", "49.0 ± 1.4", "24.5 ± 0.7"] + [
        "49.0 ± 1.4",
        "30",
    ]
    assert cells["RT-ER, β = 6, longer"][6].strip() == ""  # it has not seen AutoAttack
    assert cells["one network"][0].strip() == "39.0 ± 1.4"
    assert cells["one network"][2].strip() == "", "it has no experts to attack"
    some = launcher.table(tmp_path, [0, 1], ["single", "standard"]).splitlines()
    assert [line.split("|")[1].strip() for line in some[2:-2]] == ["one network", "standard"]
    assert cells["JTDMoE, α = 0.7"][0].strip() == "70.0 ± 0.0"
    assert cells["JTDMoE, α = 0.7"][6].strip() == "70.0 ± 0.0"
    assert cells["JTDMoE, α = 0.9"][6].strip() == ""
    assert "n = 20, seeds 0, 1" in lines[-1]
    assert "ε = 8/255, linf, 50 steps" in lines[-1]
    # 16 epochs of 5 + 1; 8, and 10 more, of 2 · 5 + 3; 4 of 5 + 1 + 4 · (5 + 2) + 2.
    costs = {"PGD-AT": "96", "RT-ER, β = 2": "104", "longer RT-ER beside standard, α = 1": "130"}
    costs["PGD-AT, longer"] = "132"
    costs |= {"one network": "30", "standard": "30", "one network, PGD-AT": "96"}
    costs |= {"JTDMoE, α = 0.7": "144", "PGD-AT, experts apart": "96"}
    for title, cost in costs.items():
        assert cells[title][7].strip() == cost


def test_a_curve_evaluates_the_dual_model_at_each_missing_alpha(tmp_path, monkeypatch):
    def load(run):
        keys = jax.random.split(jax.random.key(len(params)), 2)
        params[run.name] = {
            "router": jax.random.normal(keys[0], (3, 2)),
            "experts": jax.random.normal(keys[1], (2, 3, 10)),
        }
        return types.SimpleNamespace(
            mixture=mixture,
            params=params[run.name],
            experiment=Experiment(),
            dataset=types.SimpleNamespace(test=None),
        )

    def evaluate(model, params, batches, *, attacks, journal, **_):
        journal.touch()
        seen.append((params["alpha"], attacks, model.apply(params, x)))
        return types.SimpleNamespace(rows=(), checks=(), notes=())

    def linear(params, x):
        return x.mean((1, 2, 3)) @ params

    params, seen, x = {}, [], jax.random.uniform(jax.random.key(9), (4, 1, 2, 2, 3))
    mixture = from_functions(linear, linear, num_experts=2, top_k=1)
    monkeypatch.setattr(launcher.runs, "load", load)
    monkeypatch.setattr(launcher, "evaluation_loader", lambda *_: [])
    monkeypatch.setattr(launcher, "evaluate_suite", evaluate)
    _evaluated(launcher.point("dual", 0.6, 3, tmp_path), 0.5, launcher.ATTACKS)
    launcher.curve("dual", 3, tmp_path)
    assert [round(float(alpha), 2) for alpha, *_ in seen] == [0.5, 0.7, 0.8, 0.9, 1.0]
    assert [attacks == launcher.STRONGEST for _, attacks, _ in seen] == [False, True] + [False] * 3
    standard = mixture.apply(params["standard_3"], x)
    robust = mixture.apply(params["rt_er_long_3"], x)
    for alpha, _, logits in seen:
        expected = (1 - alpha) * standard + alpha * robust
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_line_needs_those_that_it_starts_from(options, capsys):
    given = ["--data", options.data, "--runs", str(options.runs)]
    assert launcher.parse([*given, "--lines", "single", "at_s"]).lines == ["single", "at_s"]
    assert launcher.parse([*given, "--lines", "at_s", "single"]).lines == ["single", "at_s"]
    for lines, said in (
        (["at_s"], "at_s starts from single; name it too"),
        (["at", "standard", "none"], "none; expected some of single"),
    ):
        with pytest.raises(SystemExit):
            launcher.parse([*given, "--lines", *lines])
        assert said in capsys.readouterr().err
    assert launcher.curves(["standard", "rt_er_long"]) == ["dual"]


def test_data_that_is_no_file_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        launcher.parse(["--data", str(tmp_path / "none.npz")])
    assert "none.npz is no file" in capsys.readouterr().err


def _evaluated(run: pathlib.Path, value: float, attacks) -> None:
    run.mkdir(exist_ok=True)
    rows = [row(name, 8 / 255, value, value / 2) for name in ("clean", *attacks)]
    write_results(rows, run)


def _described(run: pathlib.Path, line) -> None:
    run.mkdir()
    experiment = load_config(str(launcher.CONFIGS / f"cifar10_small_{line.config}.py"))
    start = ["--training.initialize-from", "a run"] if line.start else []
    experiment = apply_overrides(experiment, [*line.overrides, *start])
    (run / "config.json").write_text(json.dumps(to_dict(experiment)))
