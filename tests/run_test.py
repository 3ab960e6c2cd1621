"""A run that was read back."""

import json

import jax
import numpy as np
import pytest

from jaxmoe.config import to_dict
from jaxmoe.runs.build import build_mixture
from jaxmoe.runs.run import init_params, load
from jaxmoe.training import Checkpoints, adamw, init_state
from tests.commands.tiny import TINY


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that looks trained: its latest checkpoint has fresh params, kept as NumPy arrays."""
    monkeypatch.setenv("JAXMOE_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(to_dict(TINY)))
    params = init_params(TINY, build_mixture(TINY, 10))
    state = jax.tree.map(np.asarray, init_state(params, adamw(1e-2, 1.0)))
    Checkpoints(run).save("latest", 1, state, {"finished": True})
    return run


def test_the_params_of_a_loaded_run_are_on_the_device_already(run):
    trained = load(run)
    double = jax.jit(lambda params: jax.tree.map(lambda leaf: 2 * leaf, params))
    with jax.transfer_guard_host_to_device("disallow"):
        doubled = double(trained.params)
    for leaf in jax.tree.leaves(trained.params):
        assert isinstance(leaf, jax.Array)
    assert jax.tree.structure(doubled) == jax.tree.structure(trained.params)
