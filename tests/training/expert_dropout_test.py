"""Expert dropout: how often experts are gone, and the loss of an example whose drop is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmoe.attacks.edge import to_pixels
from jaxmoe.config import RECIPES
from jaxmoe.mixture import from_functions
from jaxmoe.threat import ThreatModel
from jaxmoe.training import Found, Phase, RecipeOptions, init_state, make_train_step
from tests.training.conftest import EXPERTS, tiny_batch
from tests.training.recipes_test import cross_entropy, flat_experts, route, softmax

STILL = optax.identity()


def stepper(mixture, recipe, dropped, rate=0.0):
    step = make_train_step(
        mixture,
        recipe,
        RecipeOptions(dropped_experts=dropped),
        ThreatModel(),
        STILL,
        optax.constant_schedule(rate),
        optax.constant_schedule(0.0),
    )
    return jax.jit(step)


def choosing(dropped):
    """A step of experts that say their own numbers: its loss is the mean number that is chosen.

    The attack's choice counts a thousand times.
    """

    def everywhere(x, values):
        return jnp.broadcast_to(values, (len(x), EXPERTS))

    mixture = from_functions(
        lambda params, x: everywhere(x, params["logits"]),
        lambda params, x: everywhere(x, params["says"]),
        num_experts=EXPERTS,
        combine="none",
    )

    def chosen(mixture, params, x):
        return jnp.argmax(mixture.apply(params, x), axis=-1).astype(jnp.float32)

    def recipe(mixture, threat, options):
        del threat, options

        def attack(keys, params, x, y, previous):
            del keys, y, previous
            return Found(chosen(mixture, params, x))

        def loss(params, x, y, found):
            del y
            return chosen(mixture, params, x) + 1000 * found.x_adv

        return (Phase("routes", attack, loss),)

    return stepper(mixture, recipe, dropped)


def trusting(logits):
    """The state of a router that has these logits everywhere."""
    experts = {"says": jnp.eye(EXPERTS)}
    return init_state({"router": {"logits": jnp.asarray(logits)}, "experts": experts}, STILL)


def test_dropped_experts_are_out_of_reach_in_losses_and_not_in_attacks():
    def mean_choice(dropped):
        step, state, batch = choosing(dropped), trusting([3.0, 2.0, 1.0, 0.0]), tiny_batch()
        keys = map(jax.random.key, range(100))
        return np.mean([step(state, batch, key)[1]["routes/loss"] for key in keys])

    assert mean_choice(0) == 0
    # Of four experts one is gone: the second is chosen where that is the first.
    assert mean_choice(1) == pytest.approx(1 / 4, abs=0.08)
    # Of two that are gone: (0, 1) sends to the third, (0, 2) and (0, 3) to the second.
    assert mean_choice(2) == pytest.approx(2 / 6 + 2 * 1 / 6, abs=0.12)


def test_the_loss_is_that_of_the_mixture_without_the_dropped_experts(mixture, params):
    choice = choosing(2)
    step = stepper(mixture, RECIPES.make("at_m").phases, 2, rate=1.0)

    @jax.jit
    @jax.value_and_grad
    def slow(p, clip, label, gone):
        logits = jnp.where(gone, -jnp.inf, route(p, clip))
        i = jnp.argmax(logits)
        return cross_entropy(softmax(logits)[i] * jnp.stack(flat_experts(p, clip))[i], label)

    found = set()
    for seed in range(5):
        batch, key = tiny_batch(1, seed=seed), jax.random.key(seed)

        def is_gone(expert, batch=batch, key=key):
            logits = np.where(np.arange(EXPERTS) == expert, 5.0, 0.0).astype(np.float32)
            # The attack loses none, so that a thousand times the expert is its part.
            metrics = choice(trusting(logits), batch, key)[1]
            return float(metrics["routes/loss"]) - 1000 * expert != expert

        gone = tuple(map(is_gone, range(EXPERTS)))
        assert sum(gone) == 2
        found.add(gone)
        after, metrics = step(init_state(params, STILL), batch, key)
        clip = to_pixels(batch.clip)[0]
        loss, gradient = slow(params, clip, batch.label[0], jnp.asarray(gone))
        np.testing.assert_allclose(metrics["adversarial/loss"], loss, rtol=1e-4)
        taken = jax.tree.map(lambda before, after: before - after, params, after.params)
        for a, b in zip(*map(jax.tree.leaves, (taken, gradient)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)
    assert len(found) > 1
