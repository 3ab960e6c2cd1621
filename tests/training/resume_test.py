"""A killed run resumes to the same bits; a checkpoint of another model is refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import (
    ATMConfig,
    Experiment,
    MixtureConfig,
    ResNetConfig,
    RunConfig,
    SyntheticActionsConfig,
    TrainingConfig,
)
from jaxmoe.runs.run import load, train
from jaxmoe.training import Checkpoints, read_metrics

SCRIPT = """
import sys
from jaxmoe.runs.run import train
from tests.training.resume_test import Silent, experiment
train(experiment(sys.argv[1]), Silent())
"""


class Silent:
    def stage(self, name, steps, done):
        pass

    def step(self, metrics):
        pass

    def epoch(self, epoch, validation):
        pass


def experiment(directory: str, **training) -> Experiment:
    return Experiment(
        data=SyntheticActionsConfig(
            frames=4, height=8, train_clips=40, validation_clips=10, test_clips=10
        ),
        expert=ResNetConfig(width=4, stage_sizes=(1,)),
        mixture=MixtureConfig(experts=2, balance_weight=0.1),
        attack=AttackSettings(steps=2),
        recipe=ATMConfig(),
        training=TrainingConfig(
            **{
                "shared_epochs": 1,
                "shared_noise": 0.1,
                "standard_epochs": 1,
                "epochs": 4,
                "batch_size": 8,
            }
            | training
        ),
        run=RunConfig(directory=directory, checkpoint_every=1, validate_every=2, log_every=1),
    )


def start(directory, cache) -> subprocess.Popen:
    environment = os.environ | {"JAXMOE_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(directory)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    errors = process.communicate()[1]
    assert process.returncode == 0, errors[-2000:]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """A run of three stages that was left alone."""
    run = tmp_path_factory.mktemp("resume") / "whole"
    finish(start(run, cache))
    return run


@pytest.fixture(scope="module")
def killed(whole, cache):
    """The same run, killed in its third stage and resumed."""
    run = whole.parent / "killed"
    process = start(run, cache)
    latest = run / "checkpoints" / "latest"
    # Steps 5, 10, 15 end the first epochs of the three stages; 20 is in the middle of the last.
    while process.poll() is None and not any((latest / str(s)).is_dir() for s in (15, 20, 25)):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    finish(start(run, cache))
    return run


@pytest.fixture
def cached(cache, monkeypatch):
    """Data of this process is where that of the others is."""
    monkeypatch.setenv("JAXMOE_CACHE", str(cache))


SHORT = {"shared_epochs": 0, "standard_epochs": 0, "epochs": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A short run that was trained to its end, in this process."""
    run = tmp_path_factory.mktemp("resume") / "finished"
    # Optax's Adam raises a float to an integer count, which strict promotion forbids.
    with pytest.MonkeyPatch.context() as patched, jax.numpy_dtype_promotion("standard"):
        patched.setenv("JAXMOE_CACHE", str(cache))
        train(experiment(str(run), **SHORT), Silent())
    return run


def params_of(run):
    return load(run, "latest").params


@pytest.mark.nightly  # by day `runs/defences_test.py` stops one
def test_a_killed_run_ends_with_the_same_params_to_the_bit(whole, killed, cached):
    a, b = params_of(whole), params_of(killed)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.nightly
def test_the_metrics_of_a_killed_run_have_no_gap_and_no_repeat(whole, killed):
    steps = [(line["step"], line.get("epoch")) for line in read_metrics(whole)]
    assert [(line["step"], line.get("epoch")) for line in read_metrics(killed)] == steps
    assert [s for s, epoch in steps if epoch is None] == list(range(1, 31))


def test_a_finished_run_is_left_as_it_is(finished, cached):
    before = params_of(finished)
    train(experiment(str(finished), **SHORT), Silent())
    after = params_of(finished)
    for x, y in zip(*map(jax.tree.leaves, (before, after)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_another_experiment_in_the_same_folder_is_refused(finished, cached):
    with pytest.raises(ValueError, match=r"run\.directory: .* training\.epochs = 1, not 5"):
        train(experiment(str(finished), **SHORT | {"epochs": 5}), Silent())


def test_other_clips_in_the_same_folder_are_refused(finished, cached):
    description = json.loads((finished / "run.json").read_text())
    other = description | {"splits": description["splits"] | {"test": "0" * 16}}
    (finished / "run.json").write_text(json.dumps(other))
    try:
        with pytest.raises(ValueError, match=r"run\.directory: .* other test examples"):
            train(experiment(str(finished), **SHORT), Silent())
    finally:
        (finished / "run.json").write_text(json.dumps(description))


def test_a_start_whose_clips_differ_is_refused(finished, cached, tmp_path):
    start = experiment(str(tmp_path / "other"), initialize_from=str(finished))
    start = dataclasses.replace(start, data=dataclasses.replace(start.data, seed=1))
    with pytest.raises(ValueError, match=r"training\.initialize_from: .* other train examples"):
        train(start, Silent())
    assert not (tmp_path / "other").exists()


def test_a_start_that_is_not_trained_to_its_end_is_refused(finished, cached, tmp_path, monkeypatch):
    assert Checkpoints(finished).position("latest")["finished"]
    monkeypatch.setattr(Checkpoints, "position", lambda self, which: _unfinished(self, finished))
    with pytest.raises(FileNotFoundError, match=r"^training\.initialize_from: no run in .*nowhere"):
        train(experiment(str(tmp_path / "n"), initialize_from=str(tmp_path / "nowhere")), Silent())
    with pytest.raises(ValueError, match=r"training\.initialize_from: .* not trained to its end"):
        train(experiment(str(tmp_path / "next"), initialize_from=str(finished)), Silent())


def _unfinished(checkpoints, source):
    return {"finished": False} if checkpoints.run == source.resolve() else None


def test_a_checkpoint_of_another_model_is_refused(finished, cached, tmp_path):
    wider = dataclasses.replace(
        experiment(str(tmp_path / "wider"), initialize_from=str(finished)),
        expert=ResNetConfig(width=8, stage_sizes=(1,)),
    )
    with pytest.raises(ValueError, match="holds another model"):
        train(wider, Silent())
    assert not (tmp_path / "wider").exists()
