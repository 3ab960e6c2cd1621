"""Attacks on a mixture's parts: their losses against NumPy, and what they do to the route."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import (
    AttackSettings,
    expert_loss,
    model_loss,
    pgd_r,
    tlga_r,
)
from jaxmoe.attacks import router_loss as build_router_loss
from jaxmoe.mixture import choose, from_functions
from jaxmoe.threat import ThreatModel
from tests.night import at_night

LAM, GAMMA1 = 0.05, 0.7


@pytest.mark.parametrize("output", ["weights", "logits"])
def test_router_loss(small, reference, assert_gradient, output):
    s = small()
    plain = reference(s)
    settings = AttackSettings(router_output=output)

    def objective(params, x, y):
        return build_router_loss(s.mixture(), params, x, lam=LAM, gamma1=GAMMA1, settings=settings)

    def formula(clip_adv, clip, label):
        logits_adv, logits = plain.route(clip_adv), plain.route(clip)
        see = plain.softmax if output == "weights" else np.asarray
        return (
            plain.cross_entropy(logits_adv, logits.argmax())
            + LAM * plain.quotient(see(logits_adv), see(logits), clip_adv, clip)
            - GAMMA1 * plain.cross_entropy(logits_adv, logits.argmin())
        )

    assert_gradient(objective, lambda x_adv: plain.per_clip(formula, x_adv), s)


@pytest.mark.parametrize("top_k", [at_night(1), 2])
def test_expert_loss_keeps_the_clean_routing(small, reference, assert_gradient, top_k):
    s = small()
    plain = reference(s, top_k)

    def objective(params, x, y):
        moe = s.mixture(top_k)
        routing = choose(moe.route(params, x), top_k, "softmax")
        return expert_loss(moe, params, x, y, routing, lam=LAM, settings=AttackSettings())

    def formula(clip_adv, clip, label):
        chosen = plain.chosen(clip)
        weights = plain.softmax(plain.route(clip))[chosen]
        losses = [
            plain.cross_entropy(plain.expert(clip_adv, i), label)
            + LAM * plain.quotient(plain.expert(clip_adv, i), plain.expert(clip, i), clip_adv, clip)
            for i in chosen
        ]
        return weights @ losses / weights.sum()

    assert_gradient(objective, lambda x_adv: plain.per_clip(formula, x_adv), s)


def one_layer(router):
    return from_functions(router, lambda params, x: x.mean(1) @ params, num_experts=3)


def drawn_params():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32),
        {"router": rng.normal(size=(4, 3)), "experts": rng.normal(size=(3, 4, 3))},
    )


@pytest.mark.parametrize("part", ["whole", "router", "experts"])
def test_no_platform_rounds_the_products_of_a_loss_with_a_quotient(part):
    moe, params = one_layer(lambda params, x: x.mean(1) @ params), drawn_params()
    x, y = jnp.ones((4, 2, 4)), jnp.zeros(4, jnp.int32)

    def objective(params, lam):
        settings = AttackSettings(lam=lam)
        if part == "whole":
            return model_loss(moe, settings, params, x, y)
        if part == "router":
            return build_router_loss(moe, params, x, lam=lam, gamma1=GAMMA1, settings=settings)
        routing = choose(moe.route(params, x), 1, "softmax")
        return expert_loss(moe, params, x, y, routing, lam=lam, settings=settings)

    def products(lam):
        gradient = jax.jit(jax.grad(lambda x_adv: jnp.sum(objective(params, lam)(x_adv))))
        text = gradient.trace(x).lower(lowering_platforms=("tpu",)).as_text()
        return re.findall(r"stablehlo.dot_general.*", text)

    exact = products(LAM)
    assert len(exact) >= 3  # at x, at x', and a gradient
    routing_alone = int(part == "experts")  # the clean choice is no part of the quotient
    assert sum("HIGHEST" not in line for line in exact) == routing_alone
    if part != "whole":
        assert not any("HIGHEST" in line for line in products(0.0))


def test_guidance_leads_to_the_least_trusted_expert():
    moe, params = one_layer(lambda params, x: x.mean(1) @ params), drawn_params()
    x = jnp.asarray(np.random.default_rng(1).uniform(size=(16, 2, 4)), jnp.float32)
    least_trusted = moe.route(params, x).argmin(-1)
    most_trusted = moe.route(params, x).argmax(-1)
    settings = AttackSettings(gamma1=10.0, lam=0.0)
    reached = {}
    for build in (pgd_r, tlga_r):
        attack = jax.jit(functools.partial(build(moe, ThreatModel("linf", 0.6), settings)))
        x_adv = attack(jax.random.key(0), params, x, jnp.zeros(16, jnp.int32)).x_adv
        route = moe.route(params, x_adv).argmax(-1)
        assert (route != most_trusted).mean() > 0.5
        reached[build] = (route == least_trusted).mean()
    assert reached[tlga_r] > reached[pgd_r]


def test_a_router_without_a_gradient_shows_as_such():
    def one_hot(params, x):
        return jax.nn.one_hot((x.mean(1) @ params).argmax(-1), 3)

    x = jnp.asarray(np.random.default_rng(1).uniform(size=(4, 2, 4)), jnp.float32)
    y = jnp.zeros(4, jnp.int32)
    attack = pgd_r(one_layer(one_hot), ThreatModel(), AttackSettings(steps=2))
    result = jax.jit(attack)(jax.random.key(0), drawn_params(), x, y)
    np.testing.assert_array_equal(result.zero_gradient, 1)
    assert result.finite.all()
