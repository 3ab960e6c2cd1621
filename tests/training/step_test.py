"""The training step: what moves, what does not, and that devices do not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmoe.attacks import AttackSettings, cross_entropy
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.config import RECIPES
from jaxmoe.mixture import balance_loss, dual_mixture
from jaxmoe.threat import ThreatModel
from jaxmoe.training import PARTS, Found, Phase, RecipeOptions, adamw, init_state, make_train_step
from tests.night import at_night
from tests.training.conftest import EXPERTS, tiny_batch, tiny_mixture
from tests.training.oud_m_test import restored_mixture

OPTIONS = RecipeOptions(AttackSettings(steps=2), balance_weight=0.3)


def build(mixture, recipe, **fields):
    optimizer = adamw(1e-2, 1.0)
    step = make_train_step(
        mixture,
        RECIPES.make(recipe).phases,
        fields.pop("options", OPTIONS),
        ThreatModel("linf", 0.1),
        optimizer,
        optax.constant_schedule(1e-2),
        optax.constant_schedule(0.1),
        **fields,
    )
    return jax.jit(step), optimizer


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


# Recipes whose losses or attacks others have too.
ALIKE = ("at_s", "at_d", "oud_m", "aat_m", "tlat", "trades", "jtdmoe", "rt_er")


def trained_by(recipe):
    """The mixture that a recipe is for, and from how many ε it draws."""
    mixtures = {
        "at_s": lambda: tiny_mixture(experts=1),
        "at_d": lambda: tiny_mixture(top_k=EXPERTS),
        "oud_m": restored_mixture,
        "jtdmoe": lambda: dual_mixture(tiny_mixture(), tiny_mixture(), 0.7),
    }
    return mixtures.get(recipe, tiny_mixture)(), 3 if recipe == "aat_m" else 0


# A gate learns on top of experts that were trained: `gate_test.py`.
@pytest.mark.parametrize(
    "recipe",
    [at_night(name) if name in ALIKE else name for name in RECIPES if name != "gate"],
)
def test_every_recipe_lowers_the_loss_of_each_phase_on_one_batch(recipe):
    mixture, radii = trained_by(recipe)
    params = mixture.init(jax.random.key(0), to_pixels(tiny_batch().clip))
    step, optimizer = build(mixture, recipe, options=OPTIONS._replace(balance_weight=0.0))
    state, batch = init_state(params, optimizer, radii=radii), tiny_batch()
    steps = []
    for _ in range(40):
        state, metrics = step(state, batch, jax.random.key(1))
        steps.append({name: float(loss) for name, loss in metrics.items() if "/loss" in name})
    # One small network holds less of the labels, which are drawn: eight clips, three classes.
    most = {"at_s": 0.8, "oud_m": 0.9}.get(recipe, 0.7)
    for phase in steps[0]:
        losses = [losses[phase] for losses in steps]
        assert np.mean(losses[-5:]) < most * np.mean(losses[:5]), phase


def test_lambda_warms_up_in_the_loss_and_in_its_attack(mixture):
    params, batch = mixture.init(jax.random.key(0), None), tiny_batch()

    def after(lam, **fields):
        attack = AttackSettings(steps=2, lam=lam)
        step, optimizer = build(mixture, "tlat", options=RecipeOptions(attack, lam=lam), **fields)
        return step(init_state(params, optimizer), batch, jax.random.key(1))[0].params

    half = after(0.5)
    warming = after(2.0, lam_share=lambda step: (step + 1) / 4)  # a quarter at step 0
    for got, want in zip(*map(jax.tree.leaves, (warming, half)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    assert not same(half, after(2.0))


@pytest.mark.parametrize(
    ("recipe", "phase", "moved"),
    [
        ("j_tlat", 0, {"router"}),
        ("j_tlat", 1, {"experts"}),
        ("j_tlat", 2, {"router", "experts"}),
        at_night("adv_moe", 0, {"experts"}),
        ("adv_moe", 1, {"router"}),
        ("gate", 0, {"router"}),
        ("jtdmoe", 1, {"router", "experts", "standard"}),
    ],
)
def test_a_part_outside_a_phase_stays_the_same_to_the_bit(recipe, phase, moved):
    mixture, _ = trained_by(recipe)
    step, optimizer = build(mixture, recipe, only_phase=phase)
    before = init_state(mixture.init(jax.random.key(0), None), optimizer)
    after, metrics = step(before, tiny_batch(), jax.random.key(1))
    assert all(np.isfinite(value) for value in metrics.values())
    for part in before.params:
        assert same(before.params[part], after.params[part]) == (part not in moved)
        assert same(before.optimizer[part], after.optimizer[part]) == (part not in moved)


def test_running_statistics_do_not_move(mixture, params):
    """Weight decay alone would move them."""

    def with_statistics(p):
        return {**p, "experts": {"params": p["experts"], "batch_stats": jnp.ones((4, 3))}}

    expert = mixture._replace(
        apply=lambda p, x: mixture.apply({**p, "experts": p["experts"]["params"]}, x)
    )
    step, optimizer = build(expert, "standard", options=RecipeOptions())
    before = init_state(with_statistics(params), optimizer)
    after, _ = step(before, tiny_batch(), jax.random.key(1))
    assert same(before.params["experts"]["batch_stats"], after.params["experts"]["batch_stats"])
    assert not same(before.params["experts"]["params"], after.params["experts"]["params"])


def test_the_same_key_gives_the_same_bits_and_another_does_not(mixture, params):
    step, optimizer = build(mixture, "at_m")
    state, batch = init_state(params, optimizer), tiny_batch()
    first, _ = step(state, batch, jax.random.key(1))
    again, _ = step(state, batch, jax.random.key(1))
    other, _ = step(state, batch, jax.random.key(2))
    assert same(first, again)
    assert not same(first.params, other.params)


def test_the_order_of_the_batch_does_not_matter(mixture, params):
    """Random starts are folded by the example's own index."""
    step, optimizer = build(mixture, "at_m")
    state, batch = init_state(params, optimizer), tiny_batch()
    order = np.random.default_rng(3).permutation(len(batch.label))
    straight, _ = step(state, batch, jax.random.key(1))
    shuffled, _ = step(state, jax.tree.map(lambda a: a[order], batch), jax.random.key(1))
    for a, b in zip(*map(jax.tree.leaves, (straight.params, shuffled.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_an_adversarial_step_at_epsilon_zero_is_the_standard_step(mixture, params):
    optimizer = adamw(1e-2, 1.0)

    def first_step(recipe):
        step = make_train_step(
            mixture,
            RECIPES.make(recipe).phases,
            RecipeOptions(AttackSettings(steps=2)),
            ThreatModel("linf", 0.1),
            optimizer,
            optax.constant_schedule(1e-2),
            optax.constant_schedule(0.0),
        )
        return jax.jit(step)(init_state(params, optimizer), tiny_batch(), jax.random.key(1))[0]

    for a, b in zip(
        *map(jax.tree.leaves, (first_step("at_m").params, first_step("standard").params)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_broken_attack_shows_in_the_metrics(mixture, params):
    broken = mixture._replace(apply=lambda p, x: mixture.apply(p, x) * jnp.sqrt(-jnp.ones(())))
    step, optimizer = build(broken, "at_m")
    _, metrics = step(init_state(params, optimizer), tiny_batch(), jax.random.key(1))
    assert float(metrics["adversarial/finite"]) == 0


def test_router_noise_is_in_losses_and_not_in_attacks(mixture, params):
    batch = tiny_batch()

    def recipe(mixture, threat, options):
        del threat, options

        def attack(keys, params, x, y, previous):
            del keys, y, previous
            return Found(mixture.apply(params, x))

        def loss(params, x, y, found):
            del y
            return jnp.mean(jnp.square(mixture.apply(params, x) - found.x_adv), axis=-1)

        return (Phase("router", attack, loss),)

    def loss(noise, key=1):
        optimizer = adamw(0.0, 1.0)
        constant = optax.constant_schedule(0.0)
        options = RecipeOptions(router_noise=noise)
        step = jax.jit(
            make_train_step(mixture, recipe, options, ThreatModel(), optimizer, constant, constant)
        )
        _, metrics = step(init_state(params, optimizer), batch, jax.random.key(key))
        return float(metrics["router/loss"])

    assert loss(0.0) < 1e-9
    assert loss(3.0) > 1e-3
    assert loss(3.0) != loss(3.0, key=2)


def toward(x):
    """A fixed change of clips, for recipes whose attack is known."""
    return jnp.clip(x + 0.3 * jnp.sign(jnp.cos(jnp.arange(x.size)).reshape(x.shape)), 0, 1)


def attacked(loss, moves=PARTS):
    """A recipe of one phase, with `toward` as its attack."""

    def recipe(mixture, threat, options):
        del threat, options

        def attack(keys, params, x, y, previous):
            del keys, params, y, previous
            return Found(toward(x))

        return (Phase("toy", attack, lambda *given: loss(mixture, *given), moves),)

    return recipe


def router_gradient(mixture, params, moves=PARTS, **fields):
    """Returns what one step takes off the router's params if its recipe has no loss of its own."""
    step = make_train_step(
        mixture,
        attacked(lambda mixture, params, x, y, found: jnp.zeros(len(x)), moves),
        RecipeOptions(**fields),
        ThreatModel(),
        optax.identity(),
        optax.constant_schedule(1.0),
        optax.constant_schedule(0.0),
    )
    after, _ = jax.jit(step)(init_state(params, optax.identity()), tiny_batch(), jax.random.key(0))
    return params["router"]["w"] - after.params["router"]["w"]


def test_balance_counts_attacked_clips_too(mixture, params):
    x = to_pixels(tiny_batch().clip)

    def switch(router):
        routed = [mixture.route({**params, "router": router}, clips) for clips in (x, toward(x))]
        # Each by itself: all clean clips at one expert and all attacked at another is uneven.
        return sum(balance_loss(logits, "switch") for logits in routed) / 2

    expected = 0.7 * jax.grad(switch)(params["router"])["w"]
    got = router_gradient(mixture, params, balance_weight=0.7)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


def test_the_load_of_a_mixture_is_that_of_its_top_k():
    mixture = tiny_mixture(top_k=2)
    params = mixture.init(jax.random.key(0), None)
    x = to_pixels(tiny_batch().clip)

    def load(router, top_k):
        routed = [mixture.route({**params, "router": router}, clips) for clips in (x, toward(x))]
        return sum(balance_loss(logits, "load", top_k=top_k) for logits in routed) / 2

    expected, other = (jax.grad(load)(params["router"], k)["w"] for k in (2, 1))
    got = router_gradient(mixture, params, balance_weight=1.0, balance="load")
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)
    assert not np.allclose(expected, other, atol=1e-3)


def test_a_router_is_held_to_its_clean_routes(mixture, params):
    x = to_pixels(tiny_batch().clip)
    trusted = np.argmax(mixture.route(params, x), axis=-1)
    assert (trusted != np.argmax(mixture.route(params, toward(x)), axis=-1)).any()

    def kept(router):
        logits = mixture.route({**params, "router": router}, toward(x))
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(x)), trusted])

    expected = 0.7 * jax.grad(kept)(params["router"])["w"]
    got = router_gradient(mixture, params, route_weight=0.7)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)
    alone = router_gradient(mixture, params, frozenset({"router"}), route_weight=0.7)
    assert not alone.any(), "J-TLAT's phase of the router has this loss for its own"


@pytest.mark.parametrize("route", ["own", "clean"])
def test_attacked_clips_teach_their_own_expert_or_the_clean_clips(mixture, params, route):
    def loss(mixture, params, x, y, found):
        return cross_entropy(mixture.apply(params, found.x_adv), y)

    step = make_train_step(
        mixture,
        attacked(loss),
        RecipeOptions(attacked_route=route),
        ThreatModel(),
        optax.identity(),
        optax.constant_schedule(0.0),
        optax.constant_schedule(0.0),
    )
    batch = tiny_batch()
    x = to_pixels(batch.clip)
    _, metrics = jax.jit(step)(init_state(params, optax.identity()), batch, jax.random.key(0))
    logits = mixture.route(params, toward(x) if route == "own" else x)
    expert = np.argmax(logits, axis=-1)
    trust = jax.nn.softmax(logits)[np.arange(len(x)), expert]
    outputs = mixture.experts(params, toward(x))[expert, np.arange(len(x))]
    expected = jnp.mean(cross_entropy(trust[:, None] * outputs, batch.label))
    np.testing.assert_allclose(metrics["toy/loss"], expected, rtol=1e-5)
