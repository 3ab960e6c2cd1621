"""What a mixture's parts take: counted by hand, and beside what is really there."""

import dataclasses

import jax
import pytest

from jaxmoe.config import (
    DeepLabConfig,
    Experiment,
    MixtureConfig,
    ResNetConfig,
    SimpleGateConfig,
    StandardConfig,
    SyntheticScenesConfig,
    TrainingConfig,
)
from jaxmoe.runs.build import build_mixture
from jaxmoe.runs.plan.parts import network_of, step_of
from jaxmoe.runs.run import init_params
from tests.commands.tiny import TINY
from tests.night import at_night

FOUR = dataclasses.replace(
    TINY,
    expert=ResNetConfig(width=4, stage_sizes=(1,), norm="frozen_batch"),
    mixture=MixtureConfig(experts=4, top_k=1),
)


def numbers(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_parts_have_the_sizes_of_what_is_drawn():
    params = init_params(FOUR, build_mixture(FOUR, 10))
    network = network_of(FOUR, 10)
    router, expert, mixture, dense = network.parts
    assert router.params == numbers(params["router"])
    assert 4 * expert.params == numbers(params["experts"]["params"])
    assert expert.params_bytes == numbers(params["experts"])  # four bytes each, four experts
    assert mixture.params == dense.params == router.params + 4 * expert.params
    assert mixture.params_bytes == 4 * numbers(params)
    # Two moments of each variable, and each part's count of steps.
    assert mixture.optimizer_bytes == 2 * mixture.params_bytes + 2 * 4
    assert network.shapes["expert/params/stem/kernel"] == (3, 3, 3, 3, 4)
    assert network.shapes["expert/batch_stats/norm_stem/mean"] == (4,)


def test_flops_are_those_of_the_convolutions_by_hand():
    """16 × 16 by 4 frames, halved in space: each tap counts where it meets a pixel."""
    network = network_of(FOUR, 10)
    router, expert, mixture, dense = network.parts
    time = 3 * 4 - 2  # pairs of an output frame and an input frame under a window of 3
    strided, whole = 3 * 8 - 1, 3 * 8 - 2  # the same of rows: 16 to 8, and 8 to 8
    stem = 2 * 3 * 4 * time * strided**2
    block = 2 * (2 * 4 * 4 * time * whole**2)
    assert expert.flops == stem + block + 2 * 4 * 10
    assert mixture.flops == router.flops + expert.flops
    assert dense.flops == router.flops + 4 * expert.flops
    assert network.ratio == mixture.flops / dense.flops


def test_more_examples_hold_more_and_the_state_stays():
    small, large = (
        dataclasses.replace(FOUR, training=TrainingConfig(epochs=1, batch_size=size))
        for size in (2, 8)
    )
    few, many = step_of(small, 10), step_of(large, 10)
    assert few.state == many.state
    assert many.batch == 4 * few.batch
    assert many.held > few.held
    one, eight = network_of(small, 10).parts[1], network_of(large, 10).parts[1]
    assert one.params_bytes == eight.params_bytes
    assert 3 * one.held_bytes < eight.held_bytes < 4 * one.held_bytes + one.params_bytes


GATE = Experiment(
    data=SyntheticScenesConfig(height=32),
    expert=DeepLabConfig(width=4, stage_sizes=(1,), features=4, low_level=2, rates=(2,)),
    router=SimpleGateConfig(),
    mixture=MixtureConfig(experts=2, top_k=2),
    recipe=StandardConfig(),
    training=TrainingConfig(epochs=1, batch_size=2),
)
SINGLE = dataclasses.replace(TINY, mixture=MixtureConfig(experts=1, top_k=1))


@pytest.mark.parametrize(
    "experiment", [at_night(GATE, id="gate"), pytest.param(SINGLE, id="single")]
)
def test_mixtures_that_run_every_expert_are_dense(experiment):
    network = network_of(experiment, 5)
    assert network.ratio == 1
    assert network.parts[-1].flops >= experiment.mixture.experts * network.parts[1].flops
