"""Runs of before still load: `recorded/run` is of when sections had the fields of all things."""

import pathlib
import shutil

import numpy as np
import pytest

from jaxmoe.config import JTLATConfig, PooledRouterConfig, ResNetConfig
from jaxmoe.reporting import read_results
from jaxmoe.runs.folder import read_experiment
from jaxmoe.runs.run import load
from tests.commands.tiny import run

RECORDED = pathlib.Path(__file__).parent / "recorded" / "run"
_TIMES = {"seconds", "compile_seconds"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(RECORDED, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXMOE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_run_of_before_is_what_it_was():
    found = read_experiment(RECORDED)
    assert found.recipe == JTLATConfig(order="epoch", weak_experts=1, lam=1e-3)
    assert found.expert == ResNetConfig(width=4, stage_sizes=(1,))
    assert found.router == PooledRouterConfig()
    assert (found.data.name, found.data.domains, found.data.classes) == ("synthetic_actions", 2, 3)
    assert found.run.validate_every == 1
    assert found.training.shared_epochs == 1
    assert found.attack.iterate == "best"  # what training kept then


def test_it_is_evaluated_to_the_same_figures(folder):
    assert load(pathlib.Path("run"), "latest").finished
    assert run("evaluate run --checkpoint latest --no-checks --output again") == 0
    before, now = read_results(RECORDED), read_results(folder / "again")
    assert [row.attack for row in now] == ["clean", "pgd", "tlga-r", "worst-case"]
    for old, new in zip(before, now, strict=True):
        for name, value in old._asdict().items():
            if name in _TIMES:
                continue
            if isinstance(value, float | list):
                np.testing.assert_allclose(getattr(new, name), value, rtol=1e-3, err_msg=name)
            else:
                assert getattr(new, name) == value, name
