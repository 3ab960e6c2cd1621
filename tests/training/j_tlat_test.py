"""J-TLAT's own fields: the attacks of its phases, its weak experts, and its two orders."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import RECIPES, Experiment, JTLATConfig
from jaxmoe.mixture import choose
from jaxmoe.parallel import make_parallel
from jaxmoe.runs.run import loop_options
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training import Found, Phase, RecipeOptions, Stage, Validation, fit
from jaxmoe.training.stages import Silent
from tests.training.conftest import OneBatch
from tests.training.defences_test import smoothed
from tests.training.recipes_test import OPTIONS, flat_experts

THREAT = ThreatModel("linf", 0.1)
KEYS = example_keys(jax.random.key(0), jnp.arange(4))


def phases_of(mixture, **fields):
    recipe = JTLATConfig(**fields)
    return recipe.phases(mixture, THREAT, recipe.fill(OPTIONS))


@pytest.mark.parametrize(("field", "number"), [("router_attack", 0), ("global_attack", 2)])
def test_a_phase_runs_the_attack_that_its_field_names(mixture, params, clips, field, number):
    x, _, y = clips
    phase = phases_of(mixture, **{field: "fgsm"})[number]
    change = jax.jit(phase.attack)(KEYS, params, x, y, None).x_adv - x
    inside = (x > 0.11) & (x < 0.89)
    np.testing.assert_allclose(np.abs(change)[inside], 0.1, rtol=1e-4)  # one step of ε: FGSM's


def test_weak_experts_alone_are_those_of_the_routers_attack(mixture, params, clips):
    x, _, y = clips
    router = phases_of(mixture, router_attack="fgsm")[0]
    (weak,) = phases_of(mixture, router_attack="fgsm", repairs=("weak_experts",), weak_experts=3)
    attacked = jax.jit(router.attack)(KEYS, params, x, y, None).x_adv
    expected = choose(mixture.route(params, attacked), 3, "renormalized")
    found = jax.jit(weak.attack)(KEYS, params, x, y, None).routing
    np.testing.assert_array_equal(found.experts, expected.experts)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-4)


def test_the_weak_experts_loss_smooths_the_labels(mixture, params, clips):
    x, x_adv, y = clips
    (weak,) = RECIPES.make("j_tlat", repairs=("weak_experts",)).phases(
        mixture,
        THREAT,
        OPTIONS._replace(label_smoothing=0.4, lam=0.0, repairs=("weak_experts",)),
    )
    routing = choose(mixture.route(params, x), 2, "renormalized")

    def loss(clip, label, experts, weights):
        pairs = zip(experts, weights, strict=True)
        return sum(w * smoothed(flat_experts(params, clip)[i], label, 0.4) for i, w in pairs)

    expected = [loss(*each) for each in zip(x_adv, y, *routing, strict=True)]
    found = weak.loss(params, x, y, Found(x_adv, routing=routing))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def in_two_phases(mixture, threat, options):
    """A cheap recipe of two phases, each with a part of its own."""
    del mixture, threat, options

    def loss_of(part):
        return lambda params, x, y, found: (
            jnp.mean(jnp.square(params[part]["w"])) * jnp.ones(len(x))
        )

    return tuple(
        Phase(part, None, loss_of(part), frozenset({part})) for part in ("router", "experts")
    )


class Heard(Silent):
    """The phases whose metrics each step had, and the epochs that ended, in order."""

    def __init__(self):
        self.order = []

    def step(self, metrics):
        names = (name.partition("/")[0] for name in metrics if name.endswith("/loss"))
        self.order.append("+".join(sorted(names)))

    def epoch(self, epoch, validation):
        self.order.append(epoch)


@pytest.mark.parametrize("order", ["minibatch", "epoch"])
def test_phases_come_on_each_batch_or_sweep_the_data_in_turn(mixture, params, order):
    heard = Heard()
    options = {"log_every": 1, "validate_every": 1}
    after = fit(
        mixture,
        params,
        (Stage("tiny", in_two_phases, 2, in_turn=JTLATConfig(order=order).in_turn),),
        OneBatch(),
        2,
        threat=THREAT,
        options=dataclasses.replace(loop_options(Experiment()), **options),
        recipe_options=RecipeOptions(),
        validate=lambda params: Validation(0.5, 0.5, 1.0, 0.5),
        parallel=make_parallel(jax.devices()[:1]),
        progress=heard,
    )
    epoch = {
        "minibatch": ["experts+router"] * 2,
        "epoch": ["router", "router", "experts", "experts"],
    }[order]
    assert heard.order == [*epoch, 1, *epoch, 2]
    for part in ("router", "experts"):
        assert np.any(after[part]["w"] != params[part]["w"])
