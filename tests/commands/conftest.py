"""Folders to run commands in: with a config, and with runs that look trained."""

import dataclasses
import json
import pathlib

import jax
import pytest

from jaxmoe.config import to_dict
from jaxmoe.runs.build import build_mixture
from jaxmoe.runs.run import init_params
from jaxmoe.training import Checkpoints, adamw, init_state
from tests.commands.tiny import CONFIG, TINY


@pytest.fixture(scope="module")
def standard_promotion():
    """Optax's Adam raises a float to an integer count, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    """The working directory, with `config.py`, and the cache in it."""
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXMOE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def trained(folder) -> pathlib.Path:
    """A run that looks trained: its latest checkpoint has fresh params."""
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(to_dict(TINY)))
    params = init_params(TINY, build_mixture(TINY, 10))
    position = {"finished": True, "global_step": 1, "seconds": 75.0}
    Checkpoints(run).save("latest", 1, init_state(params, adamw(1e-2, 1.0)), position)
    return run


@pytest.fixture
def described(folder) -> pathlib.Path:
    """The second of two runs that have a config and no checkpoint yet: `run`, `other/run`."""
    for name in ("run", "other/run"):
        run = folder / name
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps(to_dict(TINY)))
    return run


@pytest.fixture
def pair(described, folder) -> pathlib.Path:
    """The same two runs, with fresh params of two seeds."""
    for seed, run in enumerate((folder / "run", described)):
        other = dataclasses.replace(TINY, run=dataclasses.replace(TINY.run, seed=seed))
        params = init_params(other, build_mixture(TINY, 10))
        state = init_state(params, adamw(1e-2, 1.0))
        Checkpoints(run).save("latest", 1, state, {"finished": True})
    return described
