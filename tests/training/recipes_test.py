"""Each phase's loss against a plain, slow rewrite of its formula, values and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import RECIPES
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training import PARTS, Found, RecipeOptions
from jaxmoe.training.recipes import dense, shared_expert
from tests.night import at_night
from tests.training.conftest import CLASSES, EXPERTS, tiny_mixture

LAM = 0.03
OPTIONS = RecipeOptions(AttackSettings(steps=3, lam=0.01), lam=LAM)


def softmax(z):
    e = jnp.exp(z - jnp.max(z))
    return e / jnp.sum(e)


def cross_entropy(z, label):
    return -jnp.log(softmax(z)[label])


def flat_experts(params, clip):
    return [
        jnp.tanh(clip.reshape(-1) @ params["experts"]["w"][i]) + params["experts"]["b"][i]
        for i in range(len(params["experts"]["w"]))
    ]


def route(params, clip):
    return clip.reshape(-1) @ params["router"]["w"]


def mixture_of(params, clip):
    """F: the most trusted expert, times its router weight."""
    weights = softmax(route(params, clip))
    i = jnp.argmax(weights)
    return weights[i] * jnp.stack(flat_experts(params, clip))[i]


def dense_of(params, clip):
    """The sum of all experts, each times its router weight."""
    return softmax(route(params, clip)) @ jnp.stack(flat_experts(params, clip))


def quotient(g_adv, g, x_adv, x):
    return jnp.mean((g_adv - g) ** 2) / jnp.mean((x_adv - x) ** 2)


def global_loss(params, x, x_adv, y):
    f_adv, f = mixture_of(params, x_adv), mixture_of(params, x)
    return cross_entropy(f_adv, y) + LAM * quotient(f_adv, f, x_adv, x)


def router_loss(params, x, x_adv, y):
    del y
    r_adv, r = route(params, x_adv), route(params, x)
    consistency = quotient(softmax(r_adv), softmax(r), x_adv, x)
    return cross_entropy(r_adv, jnp.argmax(r)) + LAM * consistency


def weak_experts_loss(params, x, x_router, x_adv, y):
    weights = jax.lax.stop_gradient(softmax(route(params, x_router)))
    weak = jnp.argsort(-weights)[:2]
    total = 0.0
    for i in weak:
        e_adv = jnp.stack(flat_experts(params, x_adv))[i]
        e = jnp.stack(flat_experts(params, x))[i]
        loss = cross_entropy(e_adv, y) + LAM * quotient(e_adv, e, x_adv, x)
        total += weights[i] / jnp.sum(weights[weak]) * loss
    return total


def compare(fast, slow, params):
    """Asserts that values and gradients are the same; returns the gradient."""
    value, gradient = jax.jit(jax.value_and_grad(fast))(params)
    value_slow, gradient_slow = jax.jit(jax.value_and_grad(slow))(params)
    np.testing.assert_allclose(value, value_slow, rtol=1e-4)
    for a, b in zip(*map(jax.tree.leaves, (gradient, gradient_slow)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)
    return gradient


def phases(mixture, recipe):
    return RECIPES.make(recipe).phases(mixture, ThreatModel("linf", 0.1), OPTIONS)


def clean_loss(params, x, x_adv, y):
    del x_adv
    return cross_entropy(mixture_of(params, x), y)


def attacked_loss(params, x, x_adv, y):
    del x
    return cross_entropy(mixture_of(params, x_adv), y)


def attacked_dense_loss(params, x, x_adv, y):
    del x
    return cross_entropy(dense_of(params, x_adv), y)


@pytest.mark.parametrize(
    ("recipe", "formula", "shape", "moves"),
    [
        ("standard", clean_loss, {}, PARTS),
        ("at_s", attacked_loss, {"experts": 1}, PARTS),
        ("at_d", attacked_dense_loss, {"top_k": EXPERTS}, PARTS),
        ("at_m", attacked_loss, {}, PARTS),
        at_night("aat_m", attacked_loss, {}, PARTS),
        ("tlat", global_loss, {}, PARTS),
        at_night("gate", clean_loss, {}, {"router"}),
    ],
)
def test_recipes_of_one_phase_equal_their_formulas(clips, recipe, formula, shape, moves):
    mixture, (x, x_adv, y) = tiny_mixture(**shape), clips
    params = mixture.init(jax.random.key(0), None)
    (phase,) = phases(mixture, recipe)
    assert phase.moves == moves

    def slow(p):
        return jnp.mean(jnp.stack([formula(p, *clip) for clip in zip(x, x_adv, y, strict=True)]))

    compare(lambda p: jnp.mean(phase.loss(p, x, y, Found(x_adv))), slow, params)


def test_j_tlat_equals_its_formulas(mixture, params, clips):
    x, x_adv, y = clips
    router, weak, whole = phases(mixture, "j_tlat")
    assert [set(p.moves) for p in (router, weak, whole)] == [
        {"router"},
        {"experts"},
        {"router", "experts"},
    ]

    def mean(loss):
        return lambda p: jnp.mean(
            jnp.stack([loss(p, *clip) for clip in zip(x, x_adv, y, strict=True)])
        )

    compare(lambda p: jnp.mean(router.loss(p, x, y, Found(x_adv))), mean(router_loss), params)
    compare(lambda p: jnp.mean(whole.loss(p, x, y, Found(x_adv))), mean(global_loss), params)

    keys = example_keys(jax.random.key(0), jnp.arange(4))
    x_router = jnp.clip(x + 0.1 * jnp.sign(x - 0.5), 0, 1)
    found = jax.jit(weak.attack)(keys, params, x, y, Found(x_router))
    slow = lambda p: jnp.mean(  # noqa: E731
        jnp.stack(
            [weak_experts_loss(p, *clip) for clip in zip(x, x_router, found.x_adv, y, strict=True)]
        )
    )
    compare(lambda p: jnp.mean(weak.loss(p, x, y, found)), slow, params)


def test_j_tlat_without_some_of_its_phases(mixture):
    def names(*repairs):
        recipe = RECIPES.make("j_tlat", repairs=repairs)
        options = recipe.fill(OPTIONS)
        return [phase.name for phase in recipe.phases(mixture, ThreatModel("linf", 0.1), options)]

    assert names("router", "weak_experts", "global") == ["router", "weak_experts", "global"]
    assert names("global", "router") == ["router", "global"]
    assert names("weak_experts") == ["weak_experts"]


@pytest.mark.parametrize("recipe", ["at_m", "tlat", "j_tlat"])
def test_what_the_adversary_sees_is_not_what_is_minimised(mixture, params, clips, recipe):
    x, x_adv, y = clips

    def gradient(mode):
        options = OPTIONS._replace(attack=dataclasses.replace(OPTIONS.attack, gradient=mode))
        phase = RECIPES.make(recipe).phases(mixture, ThreatModel("linf", 0.1), options)[-1]
        return jax.jit(jax.grad(lambda p: jnp.mean(phase.loss(p, x, y, Found(x_adv)))))(params)

    for a, b in zip(*map(jax.tree.leaves, (gradient("hard"), gradient("soft"))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_dense_warm_up_equals_its_formula(mixture, params, clips):
    x, _, y = clips

    def slow(p):
        losses = [cross_entropy(dense_of(p, clip), label) for clip, label in zip(x, y, strict=True)]
        return jnp.mean(jnp.stack(losses))

    (phase,) = dense(mixture, ThreatModel(), OPTIONS)
    compare(lambda p: jnp.mean(phase.loss(p, x, y, Found(x))), slow, params)


def test_the_weak_experts_attack_raises_the_loss_it_is_for(mixture, params, clips):
    x, _, y = clips
    weak = phases(mixture, "j_tlat")[1]
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    found = jax.jit(weak.attack)(keys, params, x, y, Found(x))
    start = ThreatModel("linf", 0.1).random_start(keys, x)
    before = weak.loss(params, x, y, found._replace(x_adv=start))
    assert np.all(weak.loss(params, x, y, found) > before)


def test_the_shared_expert_alone_learns_by_its_formula(mixture, params, clips):
    x, _, y = clips
    (phase,) = shared_expert(mixture, ThreatModel(), OPTIONS)
    assert phase.moves == {"experts"}

    def fast(p):
        return jnp.mean(phase.loss(p, x, y, Found(x)))

    def slow(p):
        pairs = zip(x, y, strict=True)
        losses = [cross_entropy(flat_experts(p, clip)[0], label) for clip, label in pairs]
        return jnp.mean(jnp.stack(losses))

    gradient = compare(fast, slow, params)
    for leaf in jax.tree.leaves(gradient["experts"]):
        assert np.any(leaf[0] != 0)
        assert not np.any(leaf[1:])
    assert not np.any(gradient["router"]["w"])


def test_classes_of_the_fixture(mixture, params, clips):
    assert mixture.apply(params, clips[0]).shape == (4, CLASSES)
