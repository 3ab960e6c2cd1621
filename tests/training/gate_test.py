"""The gate's recipe on a tiny segmentation mixture: what moves, what stays, and that it learns."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import RECIPES, Experiment, GateConfig, MixtureConfig, TrainingConfig, validate
from jaxmoe.mixture import from_gate
from jaxmoe.models import ClasswiseGate, Conv, SimpleGate
from jaxmoe.threat import ThreatModel
from jaxmoe.training import Batch, RecipeOptions, adamw, init_state, make_train_step
from tests.night import at_night
from tests.training.conftest import tiny_batch
from tests.training.step_test import build, same

EXPERTS, CLASSES = 2, 3


class Expert(nn.Module):
    """A logit for each pixel from the pixel alone, and the pixels as features."""

    @nn.compact
    def __call__(self, x, *, with_features=False):
        logits = Conv(CLASSES, (1, 1), use_bias=True, name="logits")(x)
        return (logits, x) if with_features else logits


def batch():
    """Images whose brightness says which expert's classes their labels are."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 128, (8, 4, 6, 3), dtype=np.uint8)
    images[4:] += 127
    even = (images[..., 0] % 2 == 0).astype(np.int32)
    labels = even + (np.arange(8) >= 4).astype(np.int32)[:, None, None]
    labels[:, 0, 0] = -1
    return Batch(images, labels, np.arange(8, dtype=np.int32))


@pytest.mark.parametrize("conv", [at_night(False), True])
@pytest.mark.parametrize(
    "gate", [at_night(SimpleGate(EXPERTS, 5)), ClasswiseGate(EXPERTS, CLASSES, 5)]
)
def test_the_gate_learns_and_its_experts_stay_the_same_to_the_bit(gate, conv):
    head = Conv(CLASSES, (3, 3)) if conv else None
    mixture = from_gate(gate, Expert(), num_experts=EXPERTS, head=head)
    data = batch()
    params = mixture.init(jax.random.key(0), jnp.zeros((1, 4, 6, 3)))
    optimizer = adamw(1e-2, 1.0)
    step = jax.jit(
        make_train_step(
            mixture,
            RECIPES.make("gate").phases,
            RecipeOptions(),
            ThreatModel(),
            optimizer,
            optax.constant_schedule(2e-2),
            optax.constant_schedule(0.0),
        )
    )
    state, losses = init_state(params, optimizer), []
    for _ in range(25):
        state, metrics = step(state, data, jax.random.key(0))
        losses.append(float(metrics["gate/loss"]))
    assert np.mean(losses[-3:]) < losses[0]
    assert same(state.params["experts"], params["experts"])
    assert not same(state.params["router"], params["router"])
    if conv:
        assert not same(state.params["head"], params["head"])


def test_the_router_of_any_mixture_is_trained_on_experts_that_stay(mixture):
    step, optimizer = build(mixture, "gate")
    params = mixture.init(jax.random.key(0), None)
    state, metrics = step(init_state(params, optimizer), tiny_batch(), jax.random.key(0))
    assert np.isfinite(metrics["gate/loss"])
    assert same(state.params["experts"], params["experts"])
    assert not same(state.params["router"], params["router"])


def first_step(mixture, recipe, options, epsilon=0.0):
    """Params before and after one step of a recipe, and its metrics."""
    params = mixture.init(jax.random.key(0), jnp.zeros((1, 4, 6, 3)))
    optimizer = adamw(1e-2, 1.0)
    rate, schedule = optax.constant_schedule(2e-2), optax.constant_schedule(epsilon)
    threat = ThreatModel("linf", epsilon)
    step = make_train_step(
        mixture, RECIPES.make(recipe).phases, options, threat, optimizer, rate, schedule
    )
    state, metrics = jax.jit(step)(init_state(params, optimizer), batch(), jax.random.key(0))
    return params, state.params, metrics


def test_a_head_moves_where_router_and_experts_do():
    head = Conv(CLASSES, (3, 3))
    mixture = from_gate(SimpleGate(EXPERTS, 5), Expert(), num_experts=EXPERTS, head=head)
    before, after, _ = first_step(mixture, "standard", RecipeOptions())
    for part in ("router", "experts", "head"):
        assert not same(after[part], before[part])


@pytest.mark.parametrize("recipe", ["rt_er", at_night("j_tlat")])
def test_recipes_that_choose_experts_train_a_classwise_gate(recipe):
    mixture = from_gate(ClasswiseGate(EXPERTS, CLASSES, 5), Expert(), num_experts=EXPERTS)
    options = RecipeOptions(AttackSettings(steps=2))
    before, after, metrics = first_step(mixture, recipe, options, epsilon=0.1)
    assert all(np.isfinite(value) for value in metrics.values())
    for part in ("router", "experts"):
        assert not same(after[part], before[part])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"combine": "none"}, "mixture.combine: none .* softmax"),
        ({"combine": "renormalized"}, "mixture.combine: renormalized .* softmax"),
        ({"experts": 1}, "mixture.experts: 1 .* at least 2"),
        ({}, None),
        ({"combine": "renormalized", "top_k": 2}, None),
    ],
)
def test_a_router_that_could_not_learn_is_refused(fields, message):
    training = TrainingConfig(initialize_from="a run")
    experiment = Experiment(recipe=GateConfig(), training=training, mixture=MixtureConfig(**fields))
    if message is None:
        validate(experiment)
        return
    with pytest.raises(ValueError, match=message):
        validate(experiment)
