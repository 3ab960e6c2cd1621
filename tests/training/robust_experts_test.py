"""RT-ER, JTDMoE and TRADES against plain, slow rewrites of their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmoe.attacks import AttackSettings, kl_divergence
from jaxmoe.attacks.perturb import numbered_keys
from jaxmoe.config import RECIPES
from jaxmoe.mixture import dual_mixture
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training import Found, RecipeOptions, adamw, init_state, make_train_step
from jaxmoe.training.recipes.robust_experts import second_choice
from tests.night import at_night
from tests.training.conftest import EXPERTS, tiny_batch, tiny_mixture
from tests.training.recipes_test import (
    compare,
    cross_entropy,
    flat_experts,
    mixture_of,
    route,
    softmax,
)
from tests.training.step_test import same

BETA = 2.5
THREAT = ThreatModel("linf", 0.1)
OPTIONS = RecipeOptions(AttackSettings(steps=3), beta=BETA)


@pytest.fixture(scope="module")
def dual():
    return dual_mixture(tiny_mixture(), tiny_mixture(), 0.7)


@pytest.fixture(scope="module")
def dual_params(dual):
    return dual.init(jax.random.key(3), None)


def divergence(z, other):
    p, q = softmax(z), softmax(other)
    return sum(p[k] * (jnp.log(p[k]) - jnp.log(q[k])) for k in range(len(p)))


def mean(loss, *inputs):
    return lambda p: jnp.mean(jnp.stack([loss(p, *clip) for clip in zip(*inputs, strict=True)]))


def test_rt_er_equals_its_formula(mixture, params, clips):
    x, x_adv, y = clips
    (phase,) = RECIPES.make("rt_er").phases(mixture, THREAT, OPTIONS)
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    found = jax.jit(phase.attack)(keys, params, x, y, None)._replace(x_adv=x_adv)
    assert found.finite
    assert not np.allclose(found.x_experts, x_adv)

    def slow(p, x, x_adv, x_second, y):
        second = jnp.argsort(-route(p, x))[1]
        clean = jnp.stack(flat_experts(p, x))[second]
        attacked = jnp.stack(flat_experts(p, x_second))[second]
        return cross_entropy(mixture_of(p, x_adv), y) + BETA * divergence(clean, attacked)

    fast = lambda p: jnp.mean(phase.loss(p, x, y, found))  # noqa: E731
    compare(fast, mean(slow, x, x_adv, found.x_experts, y), params)


def test_the_second_expert_may_see_the_mixtures_perturbation(mixture, params, clips):
    x, _, y = clips
    (phase,) = RECIPES.make("rt_er").phases(
        mixture, THREAT, OPTIONS._replace(expert_attack="shared")
    )
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    found = jax.jit(phase.attack)(keys, params, x, y, None)
    np.testing.assert_array_equal(found.x_experts, found.x_adv)
    np.testing.assert_array_equal(found.routing.experts, second_choice(mixture, params, x).experts)


def test_the_second_experts_attack_raises_its_own_loss(mixture, params, clips):
    x, _, y = clips
    (phase,) = RECIPES.make("rt_er").phases(mixture, THREAT, OPTIONS)
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    found = jax.jit(phase.attack)(keys, params, x, y, None)
    for clip, attacked, label, expert in zip(
        x, found.x_experts, y, found.routing.experts[:, 0], strict=True
    ):
        before = cross_entropy(jnp.stack(flat_experts(params, clip))[expert], label)
        assert cross_entropy(jnp.stack(flat_experts(params, attacked))[expert], label) > before
        assert np.max(np.abs(attacked - clip)) <= 0.1 + 1e-6


@pytest.mark.parametrize("expert_attack", ["own", at_night("shared")])
def test_jtdmoes_lower_level_equals_its_formula(dual, dual_params, clips, expert_attack):
    x, x_adv, y = clips
    options = OPTIONS._replace(expert_attack=expert_attack)
    lower, _ = RECIPES.make("jtdmoe").phases(dual, THREAT, options)
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    found = jax.jit(lower.attack)(keys, dual_params, x, y, None)
    assert found.x_experts.shape == (EXPERTS, *x.shape)
    if expert_attack == "own":
        assert not np.allclose(found.x_experts[0], found.x_experts[1])
    else:
        np.testing.assert_array_equal(found.x_experts[2], found.x_adv)
    found = found._replace(x_adv=x_adv)

    def slow(p, x, x_adv, x_experts, y):
        total = cross_entropy(mixture_of(p, x_adv), y)
        for i in range(EXPERTS):
            clean, attacked = flat_experts(p, x)[i], flat_experts(p, x_experts[i])[i]
            total += BETA * divergence(clean, attacked)
        return total

    own = jnp.moveaxis(found.x_experts, 0, 1)
    fast = lambda p: jnp.mean(lower.loss(p, x, y, found))  # noqa: E731
    compare(fast, mean(slow, x, x_adv, own, y), dual_params)


def test_each_experts_perturbation_has_a_start_of_its_own(dual, dual_params, clips):
    x, _, y = clips
    lower, _ = RECIPES.make("jtdmoe").phases(dual, THREAT, OPTIONS)
    same_experts = jax.tree.map(lambda p: jnp.repeat(p[:1], EXPERTS, 0), dual_params["experts"])
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    found = jax.jit(lower.attack)(keys, {**dual_params, "experts": same_experts}, x, y, None)
    assert not np.allclose(found.x_experts[0], found.x_experts[1])


def test_jtdmoes_upper_level_equals_its_formula(dual, dual_params, clips):
    x, _, y = clips
    _, upper = RECIPES.make("jtdmoe").phases(dual, THREAT, OPTIONS)

    def slow(p, x, y):
        both = (1 - p["alpha"]) * mixture_of(p["standard"], x) + p["alpha"] * mixture_of(p, x)
        return cross_entropy(both, y)

    compare(lambda p: jnp.mean(upper.loss(p, x, y, Found(x))), mean(slow, x, y), dual_params)


@pytest.mark.parametrize(
    ("upper", "moves", "kept"),
    [
        at_night("both", ("router", "experts", "standard"), ()),
        at_night("standard", ("standard",), ("router", "experts")),
    ],
)
def test_jtdmoe_moves_what_it_says(dual, dual_params, upper, moves, kept):
    options = OPTIONS._replace(upper_moves=upper)
    optimizer = adamw(1e-2, 1.0)
    rate, epsilon = optax.constant_schedule(1e-2), optax.constant_schedule(0.1)
    recipe = RECIPES.make("jtdmoe").phases
    before = init_state(dual_params, optimizer)
    for phase, moved in ((0, ("router", "experts")), (1, moves)):
        step = make_train_step(
            dual, recipe, options, THREAT, optimizer, rate, epsilon, only_phase=phase
        )
        after, metrics = jax.jit(step)(before, tiny_batch(), jax.random.key(0))
        assert all(np.isfinite(value) for value in metrics.values())
        for part in moved:
            assert not same(before.params[part], after.params[part])
        for part in {"alpha", "standard", *kept} - set(moved):
            assert same(before.params[part], after.params[part])
            assert same(before.optimizer[part], after.optimizer[part])


@pytest.mark.parametrize("upper", ["both", at_night("standard")])
def test_jtdmoe_balances_every_router_that_its_upper_level_moves(dual, dual_params, upper):
    """Whatever a balance weight of 2 adds to the update is Switch's gradient of each router."""
    batch, weight = tiny_batch(), 2.0
    x = batch.clip.reshape(len(batch.clip), -1).astype(np.float32) / 255

    def switch(w):
        weights = jax.nn.softmax(x @ w)
        first = np.argmax(weights, axis=1)
        share = np.array([np.mean(first == expert) for expert in range(EXPERTS)], np.float32)
        return EXPERTS * jnp.sum(share * jnp.mean(weights, axis=0))

    def routers_after(weight):
        options = OPTIONS._replace(upper_moves=upper, balance_weight=weight)
        plain, one = optax.identity(), optax.constant_schedule(1.0)
        step = make_train_step(
            dual, RECIPES.make("jtdmoe").phases, options, THREAT, plain, one, one, only_phase=1
        )
        after, _ = jax.jit(step)(init_state(dual_params, plain), batch, jax.random.key(0))
        return after.params["router"]["w"], after.params["standard"]["router"]["w"]

    own, standard = (a - b for a, b in zip(routers_after(0.0), routers_after(weight), strict=True))
    np.testing.assert_allclose(
        standard, weight * jax.grad(switch)(dual_params["standard"]["router"]["w"]), atol=1e-5
    )
    expected = weight * jax.grad(switch)(dual_params["router"]["w"]) if upper == "both" else 0 * own
    np.testing.assert_allclose(own, expected, atol=1e-5)
    assert np.max(np.abs(standard)) > 1e-3


def test_trades_equals_its_formula(mixture, params, clips):
    x, x_adv, y = clips
    (phase,) = RECIPES.make("trades").phases(mixture, THREAT, OPTIONS)

    def slow(p, x, x_adv, y):
        clean = mixture_of(p, x)
        return cross_entropy(clean, y) + BETA * divergence(clean, mixture_of(p, x_adv))

    fast = lambda p: jnp.mean(phase.loss(p, x, y, Found(x_adv)))  # noqa: E731
    compare(fast, mean(slow, x, x_adv, y), params)
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    found = jax.jit(phase.attack)(keys, params, x, y, None)
    start = THREAT.random_start(keys, x)
    clean, apply = mixture.apply(params, x), mixture.apply
    raised = kl_divergence(clean, apply(params, found.x_adv))
    assert np.mean(raised) > np.mean(kl_divergence(clean, apply(params, start)))


def test_adv_moe_equals_its_formulas(mixture, params, clips):
    x, x_adv, y = clips
    experts, router = RECIPES.make("adv_moe").phases(mixture, THREAT, OPTIONS)
    assert (experts.moves, router.moves) == ({"experts"}, {"router"})

    def of_experts(p, x, x_adv, y):
        clean = mixture_of(p, x)
        return cross_entropy(clean, y) + BETA * divergence(clean, mixture_of(p, x_adv))

    def of_router(p, x, x_adv, y):
        del y
        clean = route(p, x)
        return cross_entropy(clean, jnp.argmax(clean)) + BETA * divergence(clean, route(p, x_adv))

    for phase, slow in ((experts, of_experts), (router, of_router)):
        fast = lambda p, phase=phase: jnp.mean(phase.loss(p, x, y, Found(x_adv)))  # noqa: E731
        compare(fast, mean(slow, x, x_adv, y), params)


def test_the_attack_of_adv_moe_takes_two_steps_that_raise_both_divergences(mixture, params, clips):
    x, _, y = clips
    phase, _ = RECIPES.make("adv_moe").phases(mixture, THREAT, OPTIONS)
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    found = jax.jit(phase.attack)(keys, params, x, y, None)

    def total(x_adv):
        whole = kl_divergence(mixture.apply(params, x), mixture.apply(params, x_adv))
        return whole + kl_divergence(mixture.route(params, x), mixture.route(params, x_adv))

    start = THREAT.random_start(numbered_keys(keys, 0), x)
    assert np.all(total(found.x_adv) >= total(start))
    assert np.mean(total(found.x_adv)) > np.mean(total(start))
    # Two steps of α ε from the start, whatever `attack.steps` says.
    step = OPTIONS.attack.alpha * THREAT.epsilon
    assert np.max(np.abs(found.x_adv - start)) <= 2 * step + 1e-6
    assert np.max(np.abs(found.x_adv - start)) > step


def test_the_attack_of_adv_moe_is_chosen_freely(mixture, params, clips):
    x, _, y = clips
    own = RECIPES.make("adv_moe", inner_attack="fgsm")
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    inside = (x > 0.11) & (x < 0.89)
    for phase in own.phases(mixture, THREAT, own.fill(OPTIONS)):
        change = jax.jit(phase.attack)(keys, params, x, y, None).x_adv - x
        np.testing.assert_allclose(np.abs(change)[inside], 0.1, rtol=1e-4)  # one step of ε: FGSM's


def test_the_divergence_survives_tiny_probabilities():
    logits = jnp.asarray([[70.0, 0.0, -70.0]])
    other = jnp.asarray([[-70.0, 0.0, 70.0]])
    value, gradients = jax.value_and_grad(
        lambda z, w: jnp.sum(kl_divergence(z, w)), argnums=(0, 1)
    )(logits, other)
    np.testing.assert_allclose(value, 140.0, rtol=1e-5)
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
    # ∂KL/∂other = q − p.
    np.testing.assert_allclose(gradients[1], [[-1.0, 0.0, 1.0]], atol=1e-6)
    assert jnp.exp(jax.nn.log_softmax(logits))[0, 1] < 1e-30
