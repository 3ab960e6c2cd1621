"""The gate's recipe on a tiny segmentation mixture: what moves, what stays, and that it learns."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.config import RECIPES, Experiment, GateConfig, MixtureConfig, TrainingConfig, validate
from jaxmoe.mixture import from_gate
from jaxmoe.models import ClasswiseGate, Conv, SimpleGate
from jaxmoe.threat import ThreatModel
from jaxmoe.training import Batch, Found, RecipeOptions, adamw, init_state, make_train_step
from tests.night import at_night
from tests.training.recipes_test import compare, softmax
from tests.training.step_test import same

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


def convolved(kernel, image):
    """A convolution of width 3 with zeros around."""
    height, width, _ = image.shape
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    taps = [(i, j) for i in range(3) for j in range(3)]
    return sum(padded[i : i + height, j : j + width] @ kernel[i, j] for i, j in taps)


def test_the_gates_loss_equals_its_formula():
    """CE(head(Σ_e w_e z_e)) of the labelled pixels, w by the simple gate's own layers."""
    head = Conv(CLASSES, (3, 3))
    mixture = from_gate(SimpleGate(EXPERTS, 5), Expert(), num_experts=EXPERTS, head=head)
    params = mixture.init(jax.random.key(0), jnp.zeros((1, 4, 6, 3)))
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)  # so that no ReLU is at rest
    x, y = to_pixels(batch().clip), jnp.asarray(batch().label)
    (phase,) = RECIPES.make("gate").phases(mixture, ThreatModel(), RecipeOptions())
    assert phase.moves == {"router", "head"}

    def loss(p, image, label):
        gate, experts = p["router"]["params"], p["experts"]["params"]["logits"]
        joined = jnp.concatenate([image] * EXPERTS, axis=-1)
        seen = convolved(gate["conv"]["kernel"], joined) + gate["conv"]["bias"][None, None]
        hidden = jnp.maximum(seen, 0).ravel() @ gate["hidden_layer"]["kernel"]
        hidden = jnp.maximum(hidden + gate["hidden_layer"]["bias"], 0)
        weights = softmax(hidden @ gate["head"]["kernel"] + gate["head"]["bias"])
        total = sum(
            weights[e] * (image @ experts["kernel"][e, 0, 0] + experts["bias"][e][None, None])
            for e in range(EXPERTS)
        )
        logits = convolved(p["head"]["params"]["kernel"], total)
        p_of_classes = jnp.exp(logits) / jnp.sum(jnp.exp(logits), axis=-1, keepdims=True)
        own = jnp.take_along_axis(p_of_classes, jnp.maximum(label, 0)[..., None], axis=-1)[..., 0]
        return -jnp.sum(jnp.where(label >= 0, jnp.log(own), 0)) / jnp.sum(label >= 0)

    def slow(p):
        return jnp.mean(jax.vmap(loss, (None, 0, 0))(p, x, y))

    compare(lambda p: jnp.mean(phase.loss(p, x, y, Found(x))), slow, params)


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
