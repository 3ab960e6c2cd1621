"""A stage may have a learning rate of its own."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxmoe.config import Experiment, SyntheticActionsConfig, TrainingConfig, validate
from jaxmoe.parallel import make_parallel
from jaxmoe.runs.run import loop_options
from jaxmoe.runs.stages import stages_of
from jaxmoe.threat import ThreatModel
from jaxmoe.training import RecipeOptions, Stage, fit
from jaxmoe.training.recipes import standard
from tests.training.conftest import OneBatch


def trained(mixture, params, rate, of_stage=None):
    """Returns what two stages of one epoch leave, the first with a rate of its own."""
    options = dataclasses.replace(loop_options(Experiment()), learning_rate=rate)
    stages = (Stage("first", standard, 1, learning_rate=of_stage), Stage("then", standard, 1))
    return fit(
        mixture,
        params,
        stages,
        OneBatch(),
        3,
        threat=ThreatModel("linf", 0.1),
        options=options,
        recipe_options=RecipeOptions(),
        parallel=make_parallel(jax.devices()[:1]),
    )


def differs(params, others):
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


@pytest.mark.nightly
def test_a_stage_may_have_a_learning_rate_of_its_own(mixture, params):
    usual = trained(mixture, params, 1e-2)
    assert differs(trained(mixture, params, 1e-2, of_stage=1e-2), usual) == 0
    assert differs(trained(mixture, params, 1e-2, of_stage=1e-4), usual) > 1e-3
    # It is the first stage's alone: the second one moves the params as far as ever.
    assert differs(trained(mixture, params, 1e-12, of_stage=1e-2), params) > 1e-3
    assert differs(trained(mixture, params, 1e-2, of_stage=1e-12), params) > 1e-3


def test_the_shared_expert_has_the_rate_that_its_field_says():
    experiment = Experiment(
        data=SyntheticActionsConfig(),
        training=TrainingConfig(shared_epochs=1, shared_learning_rate=3e-3, epochs=1),
    )
    stages = stages_of(experiment, dataset=None)  # no stage here looks at the data
    assert [stage.learning_rate for stage in stages] == [3e-3, None]
    wrong = dataclasses.replace(experiment.training, shared_learning_rate=0.0)
    with pytest.raises(ValueError, match=r"training\.shared_learning_rate: 0\.0 .* above 0"):
        validate(dataclasses.replace(experiment, training=wrong))
