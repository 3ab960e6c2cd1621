"""Early stopping: when it counts, and that a stopped run counts on."""

import dataclasses
import shutil

import jax
import pytest

from jaxmoe.config import Experiment
from jaxmoe.parallel import make_parallel
from jaxmoe.runs.run import loop_options
from jaxmoe.threat import ThreatModel
from jaxmoe.training import (
    Checkpoints,
    RecipeOptions,
    Stage,
    Validation,
    fit,
)
from jaxmoe.training.recipes import standard
from tests.training.conftest import OneBatch


def train(mixture, params, run, accuracies, *, robust=(0.0,) * 9, patience=2, epochs=9, warmup=0.0):
    """Trains with validations of these accuracies; returns how many there were."""
    judged = []

    def validate(params):
        number = len(judged)
        judged.append(Validation(accuracies[number], robust[number], 1.0, 0.5))
        return judged[-1]

    options = {"checkpoint_every": 1, "validate_every": 1, "keep_latest": 99}
    stage = Stage("tiny", standard, epochs, epsilon_warmup=warmup, patience=patience)
    fit(
        mixture,
        params,
        (stage,),
        OneBatch(),
        2,
        threat=ThreatModel("linf", 0.1),
        options=dataclasses.replace(loop_options(Experiment()), **options),
        recipe_options=RecipeOptions(),
        run=run,
        validate=validate,
        parallel=make_parallel(jax.devices()[:1]),
    )
    return len(judged)


def test_it_ends_after_so_many_validations_without_a_better_one(mixture, params, tmp_path):
    assert train(mixture, params, tmp_path / "run", [0.5, 0.6, 0.6, 0.6, 0.9]) == 4
    position = Checkpoints(tmp_path / "run").position("latest")
    assert position["finished"]
    assert position["global_step"] == 4 * 2
    assert Checkpoints(tmp_path / "run").position("best")["epoch"] == 2

    # One that was stopped after the third epoch counts on.
    shutil.rmtree(tmp_path / "run/checkpoints/latest/8")
    assert Checkpoints(tmp_path / "run").position("latest")["since_best"] == 1
    assert train(mixture, params, tmp_path / "run", [0.6, 0.9]) == 1
    assert Checkpoints(tmp_path / "run").position("latest")["global_step"] == 4 * 2


def test_robust_accuracy_goes_before_clean_accuracy(mixture, params, tmp_path):
    clean, robust = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.1, 0.2, 0.3, 0.3, 0.2, 0.4]
    assert train(mixture, params, tmp_path / "run", clean, robust=robust) == 5
    best = Checkpoints(tmp_path / "run").position("best")
    assert (best["epoch"], best["score"][:2]) == (3, [0.3, 0.7])


def test_nothing_counts_while_epsilon_rises(mixture, params, tmp_path):
    """The start was never attacked: it is right on most clean clips, and would be the best."""
    falling = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert train(mixture, params, tmp_path / "run", falling, epochs=10, warmup=0.5) == 7
    assert Checkpoints(tmp_path / "run").position("best")["score"][1] == 0.5


@pytest.mark.parametrize("patience", [None, 9])
def test_without_patience_it_goes_to_its_end(mixture, params, tmp_path, patience):
    found = train(mixture, params, tmp_path / "run", [0.5] * 3, patience=patience, epochs=3)
    assert found == 3
