"""The study of accelerators, end to end in tiny sizes, and when its time is over."""

import json

import jax
import pytest

from launch.studies.accelerator import run as study


@pytest.fixture
def report(tmp_path):
    return study.Report(study.parse(["--tiny", "--output", str(tmp_path)]), study.TINY)


@pytest.mark.nightly
def test_tiny_sizes_run_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", "--tiny", "--output", str(tmp_path)])
    monkeypatch.setattr(study, "torch_sides", lambda *_: {})
    with jax.numpy_dtype_promotion("standard"):
        study.main()
    record = json.loads((tmp_path / "accelerator.json").read_text("utf-8"))
    assert record["not_finished"] == []
    assert record["machine"].startswith(jax.default_backend())
    found = {figure["name"]: figure for figure in record["figures"]}
    assert {figure["part"] for figure in found.values()} == set(study.PARTS)
    assert set(found) >= {
        "PGD-10, float32",
        "J-TLGA, float32",
        "J-TLGA, float32 / PGD-10, float32",
        "dense / default blocks",
        "blocks of 4 / default blocks",
        "expert.remat / default blocks",
        "native, float32 / conv_taps, float32",
        "loader's batch / J-TLAT step",
    }
    assert all(0 < f["low"] <= f["value"] <= f["high"] for f in found.values())
    printed = capsys.readouterr().out
    assert "| part | what | median | spread |" in printed
    assert "8 clips of 2 × 16 × 16" in printed


def test_what_was_measured_in_time_is_written(report, monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(study.os, "_exit", ended.append)
    report.add(study.figure("attacks", "PGD-10", [3.0, 1.0, 2.0], "clips/s"))
    report.stop()
    assert ended == [0]
    printed = capsys.readouterr().out
    assert "| attacks | PGD-10 | 2 clips/s | 1 to 3 |" in printed
    assert "Not finished in time: attacks, dispatch, convolutions, training." in printed


def test_ratios_are_of_one_round():
    ratio = study.ratio("dispatch", {"a": [1.0, 2.0, 9.0], "b": [2.0, 2.0, 3.0]}, "a", "b")
    assert ratio == ("dispatch", "a / b", 1.0, 0.5, 3.0, "×")


def test_a_missing_pytorch_is_said(monkeypatch):
    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: None)
    assert study.torch_version() == "not installed, so no comparison with it"
    assert study.torch_sides(None, None, None, "float32", None) == {}


def test_no_time_is_refused(capsys):
    with pytest.raises(SystemExit):
        study.parse(["--minutes", "0"])
    assert "--minutes: 0 is not above 0" in capsys.readouterr().err
