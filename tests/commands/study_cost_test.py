"""The costs of a study: gradients of attacks and losses, epochs, architectures."""

import dataclasses
import pathlib

import pytest

from jaxmoe.config import Arm, ATMConfig, MixtureConfig, StandardConfig, Study
from jaxmoe.runs.study.cells import cells, experiment_of
from jaxmoe.runs.study.cost import costs, gradients_per_example
from tests.commands.tiny import TINY

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.mark.nightly
def test_gradients_are_counted_of_attacks_and_losses():
    at_m = dataclasses.replace(TINY, recipe=ATMConfig())
    standard = dataclasses.replace(TINY, recipe=StandardConfig())
    one = dataclasses.replace(standard, mixture=MixtureConfig(experts=1))
    assert gradients_per_example(one, 8) == pytest.approx(1.0, abs=0.06)
    clean, attacked = (gradients_per_example(each, 8) for each in (standard, at_m))
    assert clean == pytest.approx(1.0, abs=0.1)
    twice = dataclasses.replace(at_m, attack=dataclasses.replace(TINY.attack, steps=4))
    step = (gradients_per_example(twice, 8) - attacked) / 2
    # A step is two of the three passes of a training gradient, whose first layer has but two.
    assert 2 / 3 < step < 1
    assert attacked - clean == pytest.approx(2 * step, rel=0.15)
    best = dataclasses.replace(at_m, attack=dataclasses.replace(TINY.attack, iterate="best"))
    look = gradients_per_example(best, 8) - attacked
    assert look == pytest.approx(step / 2, rel=0.15)
    dense = dataclasses.replace(at_m, mixture=MixtureConfig(experts=2, top_k=2))
    assert gradients_per_example(dense, 8) == pytest.approx(2 * attacked, rel=0.1)


def test_arms_of_one_cost_get_their_epochs():
    training = dataclasses.replace(TINY.training, shared_epochs=3, dense_epochs=2)
    own = Study(
        dataclasses.replace(TINY, training=training),
        {
            "standard": Arm("standard", {"training.epochs": 5}, costs=False),
            "short": Arm("short", {"recipe": "at_m", "attack.steps": 1}, start="standard"),
            "long": Arm("long", {"recipe": "at_m", "attack.steps": 6}, start="standard"),
        },
        gradients=40,
    )
    experiments = {c: experiment_of(own, c, pathlib.Path("x")) for c in cells(own)}
    found = costs(own, experiments, 8)
    assert set(found) == {("", arm) for arm in own.arms}
    start = found["", "standard"]
    assert start.epochs == 5
    assert start.in_all == pytest.approx(3 + 2 * 2 + 5, rel=0.05)
    for arm in ("short", "long"):
        cost = found["", arm]
        assert 30 < cost.gradients <= 40
        assert cost.in_all == cost.gradients + start.in_all
    assert found["", "short"].epochs > 2 * found["", "long"].epochs
    few = dataclasses.replace(own, gradients=1.5)
    with pytest.raises(ValueError, match=r"gradients: 1\.5 .* an epoch of short takes as many"):
        costs(few, experiments, 8)


def test_architectures_cost_what_they_cost():
    kinds = {"thin": {}, "wide": {"expert.width": 8}}
    own = Study(TINY, {"a": Arm("a", costs=False)}, architectures=kinds)
    experiments = {c: experiment_of(own, c, pathlib.Path("x")) for c in cells(own)}
    found = costs(own, experiments, 8)
    assert found["wide", "a"].gflops > 2 * found["thin", "a"].gflops
    assert found["thin", "a"].dense_gflops > 1.5 * found["thin", "a"].gflops


def test_an_attack_of_unknown_length_has_no_cost():
    recipe = ATMConfig(inner_attack="apgd-ce")
    with pytest.raises(ValueError, match="nobody knows what these cost"):
        gradients_per_example(dataclasses.replace(TINY, recipe=recipe), 8)
