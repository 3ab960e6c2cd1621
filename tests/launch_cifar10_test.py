"""The CIFAR-10 launcher: which runs start from which, and the tables' means."""

import importlib.util
import json
import pathlib

import jax.numpy as jnp
import pytest

from jaxmoe.training import Checkpoints, adamw, init_state

FILE = pathlib.Path(__file__).parent.parent / "launch" / "cifar10.py"


@pytest.fixture(scope="module")
def launcher():
    spec = importlib.util.spec_from_file_location("cifar10_launcher", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(launcher, tmp_path):
    (tmp_path / "images.npz").touch()
    arguments = ["--data", str(tmp_path / "images.npz"), "--runs", str(tmp_path), "--seeds", "4"]
    return launcher.parse(arguments)


def test_runs_start_from_those_before_them(launcher, options, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(launcher, "jaxmoe", lambda *arguments: commands.append(arguments))
    seen = set()
    for name, line in launcher.LINES.items():
        assert {line.start, line.standard} - {None} <= seen
        launcher.train(line, 4, tmp_path / f"{name}_4", options)
        seen.add(name)
    assert all(pathlib.Path(command[1]).is_file() for command in commands)
    at, jtdmoe = commands[1], commands[list(launcher.LINES).index("jtdmoe")]
    assert at[at.index("--training.initialize-from") + 1] == str(tmp_path / "standard_4")
    assert jtdmoe[jtdmoe.index("--training.initialize-from") + 1] == str(tmp_path / "rt_er_6_4")
    field = "--training.initialize-standard-from"
    assert jtdmoe[jtdmoe.index(field) + 1] == str(tmp_path / "standard_4")
    assert field not in at


def test_what_is_trained_is_not_trained_again(launcher, options, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "jaxmoe", lambda *_: pytest.fail("trained again"))
    _trained(tmp_path / "standard_4", 60.0)
    launcher.train(launcher.LINES["standard"], 4, tmp_path / "standard_4", options)


def test_the_tables_have_means_over_the_seeds(launcher, tmp_path):
    for number, name in enumerate(launcher.LINES):
        for seed in (0, 1):
            run = tmp_path / f"{name}_{seed}"
            _trained(run, 60.0 * (1 + seed))
            value = 0.5 + 0.1 * number - 0.02 * seed
            rows = [
                {
                    "attack": attack,
                    "epsilon": 8 / 255,
                    "norm": "linf",
                    "steps": 50,
                    "n": 1017,
                    "robust_accuracy": value,
                    "isolated_accuracy": value / 2,
                }
                for attack in ("clean", "pgd", "pgd-e", "pgd-r", "auto-attack")
            ]
            (run / "results.json").write_text(json.dumps(rows))
    text = launcher.table(tmp_path, [0, 1])
    lines = text.splitlines()
    assert lines[2].startswith("| standard | 49.0 ± 1.0 | 49.0 ± 1.0 | 49.0 ± 1.0 | 24.5 ± 0.5 |")
    assert lines[2].endswith("| 1.5 |")
    assert lines[6].startswith("| JTDMoE, α = 0.7 | 89.0 ± 1.0 |")
    assert "n = 1017, seeds 0, 1" in lines[-1]
    assert "ε = 8/255, linf, 50 steps" in lines[-1]

    for name in launcher.CURVES:
        for seed in (0, 1):
            points = [
                {"alpha": alpha, "clean": alpha, "pgd": (alpha - 0.1 * seed) / 2, "n": 1017}
                for alpha in launcher.ALPHAS
            ]
            (tmp_path / f"curve_{name}_{seed}.json").write_text(json.dumps(points))
    curve = launcher.curves(tmp_path, [0, 1]).splitlines()
    assert curve[2].startswith("| RT-ER, β = 6, beside standard | 50.0 / 22.5 | 60.0 / 27.5 |")
    assert len(curve) == 4


def test_data_that_is_no_file_is_refused(launcher, tmp_path, capsys):
    with pytest.raises(SystemExit):
        launcher.parse(["--data", str(tmp_path / "none.npz")])
    assert "none.npz is no file" in capsys.readouterr().err


def _trained(run: pathlib.Path, seconds: float) -> None:
    params = {"router": jnp.zeros(1), "experts": jnp.zeros(1)}
    position = {"seconds": seconds, "finished": True}
    Checkpoints(run).save("latest", 1, init_state(params, adamw(0, 0)), position)
