"""The training step: what moves, what does not, and that devices do not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmoe.attacks import AttackSettings, cross_entropy
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.config import RECIPES
from jaxmoe.mixture import balance_loss, dual_mixture, from_functions
from jaxmoe.threat import ThreatModel
from jaxmoe.training import PARTS, Found, Phase, RecipeOptions, adamw, init_state, make_train_step
from tests.night import at_night
from tests.training.conftest import tiny_batch, tiny_mixture

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


# A gate learns on top of experts that were trained: `gate_test.py`.
@pytest.mark.parametrize(
    "recipe",
    [at_night(name) if name in ALIKE else name for name in RECIPES if name != "gate"],
)
def test_every_recipe_lowers_its_loss_on_one_batch(mixture, recipe):
    if recipe == "jtdmoe":
        mixture = dual_mixture(mixture, mixture, 0.7)
    params = mixture.init(jax.random.key(0), None)
    step, optimizer = build(mixture, recipe, options=OPTIONS._replace(balance_weight=0.0))
    state, batch = init_state(params, optimizer), tiny_batch()
    losses = []
    for _ in range(40):
        state, metrics = step(state, batch, jax.random.key(1))
        losses.append(float(metrics[[name for name in metrics if name.endswith("/loss")][-1]]))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


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
    ("phase", "moved", "kept"), [(0, "router", "experts"), (1, "experts", "router")]
)
def test_a_part_outside_a_phase_stays_the_same_to_the_bit(mixture, params, phase, moved, kept):
    step, optimizer = build(mixture, "j_tlat", only_phase=phase)
    before = init_state(params, optimizer)
    after, _ = step(before, tiny_batch(), jax.random.key(1))
    assert same(before.params[kept], after.params[kept])
    assert same(before.optimizer[kept], after.optimizer[kept])
    assert not same(before.params[moved], after.params[moved])
    assert not same(before.optimizer[moved], after.optimizer[moved])


def test_the_third_phase_moves_everything(mixture, params):
    step, optimizer = build(mixture, "j_tlat", only_phase=2)
    before = init_state(params, optimizer)
    after, _ = step(before, tiny_batch(), jax.random.key(1))
    assert not same(before.params["router"], after.params["router"])
    assert not same(before.params["experts"], after.params["experts"])


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


def test_dropped_experts_are_out_of_reach_in_losses_and_not_in_attacks():
    def everywhere(x, values):
        return jnp.broadcast_to(values, (len(x), 4))

    mixture = from_functions(
        lambda params, x: everywhere(x, params["logits"]),
        lambda params, x: everywhere(x, params["says"]),
        num_experts=4,
        combine="none",
    )
    params = {
        "router": {"logits": jnp.asarray([3.0, 2.0, 1.0, 0.0])},
        "experts": {"says": jnp.eye(4)},
    }

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

    def mean_choice(dropped):
        optimizer, constant = adamw(0.0, 1.0), optax.constant_schedule(0.0)
        options = RecipeOptions(dropped_experts=dropped)
        step = jax.jit(
            make_train_step(mixture, recipe, options, ThreatModel(), optimizer, constant, constant)
        )
        state, batch = init_state(params, optimizer), tiny_batch()
        keys = map(jax.random.key, range(100))
        return np.mean([step(state, batch, key)[1]["routes/loss"] for key in keys])

    assert mean_choice(0) == 0
    # Of four experts one is gone: the second is chosen where that is the first.
    assert mean_choice(1) == pytest.approx(1 / 4, abs=0.08)
    # Of two that are gone: (0, 1) sends to the third, (0, 2) and (0, 3) to the second.
    assert mean_choice(2) == pytest.approx(2 / 6 + 2 * 1 / 6, abs=0.12)


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
