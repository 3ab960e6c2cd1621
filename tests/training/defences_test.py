"""Smoothed labels, AWP, the moving average and a drawn ε, each against a plain rewrite."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmoe.attacks import AttackSettings, cross_entropy, pgd
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.config import RECIPES
from jaxmoe.parallel import make_parallel
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training import (
    Found,
    NonFiniteTrainingError,
    Phase,
    RecipeOptions,
    adamw,
    init_state,
    make_train_step,
)
from jaxmoe.training.losses import label_loss
from jaxmoe.training.radii import draw_share, make_measure_radii
from tests.night import at_night
from tests.training.conftest import tiny_batch, tiny_mixture
from tests.training.recipes_test import OPTIONS, compare, mixture_of, softmax

THREAT = ThreatModel("linf", 0.1)


def smoothed(z, label, share):
    target = share / len(z) + (1 - share) * jax.nn.one_hot(label, len(z))
    return -jnp.sum(target * jnp.log(softmax(z)))


def test_smoothed_labels_are_a_cross_entropy_of_mixed_targets():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(5, 7)), jnp.float32)
    y = jnp.arange(5)
    got = label_loss(RecipeOptions(label_smoothing=0.2))(z, y)
    expected = [smoothed(*each, 0.2) for each in zip(z, y, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    assert label_loss(RecipeOptions())(z, y) == pytest.approx(cross_entropy(z, y))


def test_pixels_without_a_label_have_no_smoothed_one_either():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 3, 4)), jnp.float32)
    y = jnp.asarray([[[0, 1, -1], [-1, 3, 2]]])
    got = label_loss(RecipeOptions(label_smoothing=0.3))(z, y)
    places = [(0, 0), (0, 1), (1, 1), (1, 2)]
    expected = np.mean([smoothed(z[0][place], y[0][place], 0.3) for place in places])
    np.testing.assert_allclose(got, [expected], rtol=1e-5)


@pytest.mark.parametrize(
    "recipe", ["at_m", "j_tlat", "rt_er", *map(at_night, ("trades", "tlat", "adv_moe", "standard"))]
)
def test_every_recipe_smooths_the_labels_of_its_loss(mixture, params, clips, recipe):
    """With λ and β of 0 the loss that knows the label is a cross-entropy, and linear in s."""
    x, x_adv, y = clips

    def loss(share):
        options = OPTIONS._replace(label_smoothing=share, lam=0.0, beta=0.0)
        phases = RECIPES.make(recipe, **_nothing_beside(recipe)).phases(mixture, THREAT, options)
        phase = phases[0] if recipe == "adv_moe" else phases[-1]
        routing = None
        if recipe == "rt_er":
            from jaxmoe.training.recipes.robust_experts import second_choice

            routing = second_choice(mixture, params, x)
        return phase.loss(params, x, y, Found(x_adv, routing=routing, x_experts=x_adv))

    inputs = x if recipe in ("standard", "adv_moe", "trades") else x_adv
    logits = mixture.apply(params, inputs)
    expected = [smoothed(*each, 0.4) for each in zip(logits, y, strict=True)]
    np.testing.assert_allclose(loss(0.4), expected, rtol=1e-4)


def _nothing_beside(recipe):
    return {} if recipe == "standard" else ({"lam": 0.0} if "tlat" in recipe else {"beta": 0.0})


@pytest.mark.parametrize("loss", [*map(at_night, ("ce", "half", "trades")), "lipschitz"])
def test_an_inner_attack_and_a_loss_are_chosen_freely(mixture, params, clips, loss):
    x, x_adv, y = clips
    own = RECIPES.make("at_m", loss=loss, inner_attack="fgsm", beta=2.0, lam=0.03)
    (phase,) = own.phases(mixture, THREAT, own.fill(OPTIONS))

    def one(p, x, x_adv, y):
        clean, attacked = mixture_of(p, x), mixture_of(p, x_adv)
        logs = [jnp.log(softmax(z)) for z in (clean, attacked)]
        quotient = jnp.mean((attacked - clean) ** 2) / jnp.mean((x_adv - x) ** 2)
        ce = [-log[y] for log in logs]
        return {
            "ce": ce[1],
            "half": (ce[0] + ce[1]) / 2,
            "trades": ce[0] + 2 * jnp.sum(softmax(clean) * (logs[0] - logs[1])),
            "lipschitz": ce[1] + 0.03 * quotient,
        }[loss]

    def slow(p):
        return jnp.mean(jnp.stack([one(p, *each) for each in zip(x, x_adv, y, strict=True)]))

    compare(lambda p: jnp.mean(phase.loss(p, x, y, Found(x_adv))), slow, params)
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    change = jax.jit(phase.attack)(keys, params, x, y, None).x_adv - x
    inside = (x > 0.11) & (x < 0.89)
    np.testing.assert_allclose(np.abs(change)[inside], 0.1, rtol=1e-4)  # one step of ε: FGSM's


@pytest.mark.parametrize(
    "recipe", ["at_m", "j_tlat", *map(at_night, ("trades", "tlat", "rt_er", "adv_moe"))]
)
def test_inner_attacks_keep_the_last_iterate_and_take_no_look_at_it(params, clips, recipe):
    mixture, (x, _, y) = tiny_mixture(), clips
    keys = example_keys(jax.random.key(0), jnp.arange(len(y)))

    def lengths(**fields):
        options = RecipeOptions(AttackSettings(steps=11, **fields))
        own = {"steps": 11} if recipe == "adv_moe" else {}
        phases = RECIPES.make(recipe, **own).phases(mixture, THREAT, options)
        attacks = [phase.attack for phase in phases if phase.attack is not None]
        programs = jax.make_jaxpr(lambda p: [attack(keys, p, x, y, None) for attack in attacks])
        return set(re.findall(r"length=(11|12)\b", str(programs(params))))

    assert lengths() == {"11"}
    assert lengths(iterate="best") == {"12"}
    assert lengths(restarts=2) == {"12"}  # only a look tells the better start


def quadratic(mixture, threat, options):
    """A recipe whose gradient is known: the squared distance of all params from 1."""
    del mixture, threat, options

    def attack(keys, params, x, y, previous):
        return Found(x)

    def loss(params, x, y, found):
        total = sum(jnp.sum(jnp.square(leaf - 1)) for leaf in jax.tree.leaves(params))
        return total * jnp.ones(len(x))

    return (Phase("quadratic", attack, loss),)


def stepper(mixture, optimizer, recipe=quadratic, options=None, **fields):
    return jax.jit(
        make_train_step(
            mixture,
            recipe,
            options or RecipeOptions(),
            THREAT,
            optimizer,
            optax.constant_schedule(fields.pop("rate", 0.1)),
            optax.constant_schedule(0.1),
            **fields,
        )
    )


def test_weights_are_perturbed_layer_by_layer_before_the_gradient_is_taken(mixture, params):
    step = stepper(mixture, optax.identity(), weight_perturbation=0.2, rate=1.0)
    after, _ = step(init_state(params, optax.identity()), tiny_batch(), jax.random.key(0))

    def expected(w):
        uphill = 2 * (w - 1)
        moved = w + 0.2 * np.linalg.norm(w) * uphill / np.linalg.norm(uphill)
        return w - 2 * (moved - 1)

    np.testing.assert_allclose(
        after.params["router"]["w"], expected(np.asarray(params["router"]["w"])), rtol=1e-4
    )
    for i in range(4):  # each expert is a network of its own
        own = np.asarray(params["experts"]["w"][i])
        np.testing.assert_allclose(after.params["experts"]["w"][i], expected(own), rtol=1e-4)
    bias = np.asarray(params["experts"]["b"])
    np.testing.assert_allclose(after.params["experts"]["b"], bias - 2 * (bias - 1), rtol=1e-4)


def in_two_phases(mixture, threat, options):
    """A recipe that moves the router, then the experts; the gradient of each depends on both."""
    del mixture, threat, options

    def attack(keys, params, x, y, previous):
        return Found(x)

    def loss(params, x, y, found):
        router, experts = params["router"]["w"], params["experts"]["w"]
        return jnp.sum(jnp.square(router - 1)) * jnp.mean(jnp.square(experts)) * jnp.ones(len(x))

    return tuple(Phase(part, attack, loss, frozenset({part})) for part in ("router", "experts"))


def test_a_phase_perturbs_the_weights_that_it_moves_alone(mixture, params):
    step = stepper(mixture, optax.identity(), recipe=in_two_phases, weight_perturbation=0.2)
    after, _ = step(init_state(params, optax.identity()), tiny_batch(), jax.random.key(0))
    router, experts = (np.asarray(params[part]["w"]) for part in ("router", "experts"))

    uphill = router - 1
    perturbed = router + 0.2 * np.linalg.norm(router) * uphill / np.linalg.norm(uphill)
    router = router - 0.1 * 2 * (perturbed - 1) * np.mean(experts**2)
    np.testing.assert_allclose(after.params["router"]["w"], router, rtol=1e-4)
    # An expert's gradient is along its weights, so that it is perturbed to 1 + γ of them.
    slope = np.sum((router - 1) ** 2) * 2 * 1.2 * experts / experts.size
    np.testing.assert_allclose(after.params["experts"]["w"], experts - 0.1 * slope, rtol=1e-4)


def test_clean_phases_perturb_no_weights(mixture, params):
    def clean(*given):
        return (quadratic(*given)[0]._replace(attack=None),)

    plain, perturbed = (
        stepper(mixture, optax.identity(), recipe=clean, weight_perturbation=gamma)(
            init_state(params, optax.identity()), tiny_batch(), jax.random.key(0)
        )[0]
        for gamma in (0.0, 0.5)
    )
    for a, b in zip(*map(jax.tree.leaves, (plain.params, perturbed.params)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_average_follows_the_params_quickly_at_first(mixture, params):
    optimizer = adamw(0.0, 0.0)
    step = stepper(mixture, optimizer, average_decay=0.5)
    state = init_state(params, optimizer, averaged=True)
    expected = np.asarray(params["router"]["w"])
    for t in range(1, 12):
        state, _ = step(state, tiny_batch(), jax.random.key(0))
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["router"]["w"])
        np.testing.assert_allclose(state.average["router"]["w"], expected, rtol=1e-5, atol=1e-7)
    assert np.abs(state.average["router"]["w"] - state.params["router"]["w"]).max() > 1e-3


def test_radii_are_drawn_as_often_as_their_weights_say():
    weights = [jnp.float32(w) for w in (1.0, 0.0, 3.0)]
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.vmap(lambda key: draw_share(key, weights))(keys))
    assert sorted(set(drawn.tolist())) == [0.0, 1.0]
    assert np.mean(drawn == 1.0) == pytest.approx(0.75, abs=0.03)


def test_where_nothing_is_lost_every_radius_is_as_likely():
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = jax.vmap(lambda key: draw_share(key, [jnp.float32(0)] * 3))(keys)
    assert set(np.asarray(drawn).tolist()) == {0.0, 0.5, 1.0}


def test_a_measurement_that_is_not_finite_is_no_weight(mixture, params):
    broken = mixture._replace(apply=lambda p, x: mixture.apply(p, x) * jnp.sqrt(-jnp.ones(())))
    parallel = make_parallel(jax.devices()[:1])
    measure = make_measure_radii(broken, THREAT, AttackSettings(steps=1), parallel, params, 2)
    batch = {**tiny_batch(4)._asdict(), "valid": np.ones(4, bool)}
    with pytest.raises(NonFiniteTrainingError, match="radii: a loss or gradient is not finite"):
        measure(parallel.place(params), [batch])


def test_a_step_attacks_with_the_radius_that_it_draws(mixture, params):
    def recipe(mixture, threat, options):
        del options

        def attack(keys, params, x, y, previous):
            return Found(jnp.broadcast_to(threat.epsilon, x.shape))

        def loss(params, x, y, found):
            return jnp.mean(found.x_adv.reshape(len(x), -1), axis=-1)

        return (Phase("radius", attack, loss),)

    step = stepper(mixture, optax.identity(), recipe=recipe)
    state = init_state(params, optax.identity(), radii=3)
    found = {
        round(float(step(state, tiny_batch(), jax.random.key(k))[1]["radius/loss"]), 4)
        for k in range(40)
    }
    assert found == {0.0, 0.05, 0.1}
    only = state._replace(radius_weights=tuple(map(jnp.float32, (0.0, 1.0, 0.0))))
    for k in range(5):
        loss = step(only, tiny_batch(), jax.random.key(k))[1]["radius/loss"]
        assert float(loss) == pytest.approx(0.05)


def test_losses_of_radii_are_those_of_pgd_at_each(mixture, params):
    parallel = make_parallel(jax.devices()[:1])
    settings = AttackSettings(steps=2)
    measure = make_measure_radii(mixture, THREAT, settings, parallel, params, 3)
    parts = [tiny_batch(8, seed=0), tiny_batch(8, seed=1)]
    batches = [{**part._asdict(), "valid": np.arange(8) < 6} for part in parts]
    found = measure(parallel.place(params), batches)
    assert found[0] < found[1] < found[2]

    @jax.jit
    def losses(part, epsilon):
        attack = pgd(mixture, ThreatModel("linf", epsilon), settings)
        keys = example_keys(jax.random.key(0), part.index)
        attacked = attack(keys, params, to_pixels(part.clip), part.label)
        return cross_entropy(mixture.apply(params, attacked.x_adv), part.label)[:6]

    for share, loss in zip((0.0, 0.5, 1.0), found, strict=True):
        expected = [losses(part, share * THREAT.epsilon) for part in parts]
        assert loss == pytest.approx(np.mean(expected), rel=1e-5)
    clean = [
        cross_entropy(mixture.apply(params, to_pixels(part.clip)), part.label)[:6] for part in parts
    ]
    assert found[0] == pytest.approx(np.mean(clean), rel=1e-5)


def test_losses_of_radii_keep_the_best_iterate_whatever_training_keeps(mixture, params):
    parallel = make_parallel(jax.devices()[:1])
    batch = {**tiny_batch(8)._asdict(), "valid": np.ones(8, bool)}

    # Steps of twice ε jump to and fro, so that the last iterate is not the best.
    last, best = (
        make_measure_radii(
            mixture,
            THREAT,
            AttackSettings(steps=3, alpha=2.0, iterate=iterate),
            parallel,
            params,
            2,
        )(parallel.place(params), [batch])
        for iterate in ("last", "best")
    )
    assert last == best
