"""Runs whose ε is drawn, that keep an average and stop early: the loop, its checkpoints, resume."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from jaxmoe.config import AATMConfig, MixtureConfig
from jaxmoe.runs.run import load, loop_options, train
from jaxmoe.training import read_metrics, restore_params
from jaxmoe.training.stages import Silent
from tests.commands.tiny import TINY

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def standard_promotion():
    """Optax's Adam raises a float to an integer count, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def experiment(directory: pathlib.Path):
    return dataclasses.replace(
        TINY,
        recipe=AATMConfig(radii=3, measure_every=2),
        mixture=MixtureConfig(experts=2),
        optimizer=dataclasses.replace(TINY.optimizer, average_decay=0.5, learning_rate=1e-2),
        training=dataclasses.replace(TINY.training, epochs=4),
        run=dataclasses.replace(
            TINY.run, directory=str(directory), checkpoint_every=1, keep_latest=9
        ),
    )


@pytest.fixture(scope="module")
def run(standard_promotion, tmp_path_factory):
    del standard_promotion
    folder = tmp_path_factory.mktemp("defences")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMOE_CACHE", str(folder / "cache"))
        yield train(experiment(folder / "run"), Silent())


def weights_of(run: pathlib.Path, step: int):
    """The state's weights of ε in the checkpoint of a step, without its structure."""
    digests = json.loads((run / f"checkpoints/latest/{step}/position/metadata").read_text("utf-8"))
    return digests["digests"][-3:]


@pytest.mark.nightly
def test_epsilon_is_measured_every_so_many_epochs(run):
    steps = sorted(int(path.name) for path in (run / "checkpoints/latest").iterdir())
    assert len(steps) == 4
    one, two, three, four = (weights_of(run, step) for step in steps)
    assert one == two
    assert three == four
    assert one != three


def test_the_average_is_judged_beside_the_params_and_can_be_read(run):
    judged = [entry for entry in read_metrics(run) if "validation/accuracy" in entry]
    assert len(judged) == 4
    assert all("validation/average_robust_accuracy" in entry for entry in judged)
    latest, average = (load(run, which).params for which in ("latest", "average"))
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), latest, average)
    assert 0 < max(jax.tree.leaves(apart)) < 1


def test_a_stopped_run_draws_and_averages_on_to_the_same_bits(run, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run, again)
    shutil.copytree(run.parent / "cache", tmp_path / "cache")
    steps = sorted(int(path.name) for path in (again / "checkpoints/latest").iterdir())
    for step in steps[1:]:
        shutil.rmtree(again / f"checkpoints/latest/{step}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMOE_CACHE", str(tmp_path / "cache"))
        train(experiment(again), Silent())
    for which in ("latest", "average"):
        whole, resumed = (load(folder, which).params for folder in (run, again))
        for a, b in zip(*map(jax.tree.leaves, (whole, resumed)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_average_that_is_not_kept_is_one_line(run):
    options = loop_options(TINY)
    assert not options.average_decay
    with pytest.raises(ValueError, match=r"checkpoint: average; .* keeps none"):
        restore_params(run, "average", {}, options)
