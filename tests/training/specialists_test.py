"""Training in which experts part: who learns from what, and what stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmoe.attacks import cross_entropy
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.mixture import assign_evenly, dual_mixture, from_functions
from jaxmoe.threat import ThreatModel
from jaxmoe.training import Phase, RecipeOptions, adamw, init_state, make_train_step
from jaxmoe.training.clusters import MOST, appearance, draw_records, find_centres
from jaxmoe.training.recipes.specialists import (
    by_cluster,
    by_likelihood,
    by_own_choice,
    expert_choice,
    specialists,
    specialists_of,
)
from jaxmoe.training.recipes.standard import standard
from tests.night import at_night
from tests.training.conftest import EXPERTS, tiny_batch

BATCH, OPTIONS = tiny_batch(8), RecipeOptions()
X, Y = to_pixels(BATCH.clip), jnp.asarray(BATCH.label)
CENTRES = np.linspace(0.45, 0.55, EXPERTS)[:, None] * [1.0, 0.6]
THREAT = ThreatModel("linf", 0.1)
RECIPES = {
    "own": specialists(by_own_choice),
    "likelihood": specialists(by_likelihood),
    "cluster": specialists(by_cluster(CENTRES.astype(np.float32), appearance)),
    "expert_choice": expert_choice,
}


@pytest.fixture(scope="module")
def params(mixture):
    return mixture.init(jax.random.key(3), None)


def stepper(mixture, recipe, options=OPTIONS, **fields):
    optimizer = adamw(1e-2, 1.0)
    rate, epsilon = optax.constant_schedule(1e-2), optax.constant_schedule(0.1)
    step = make_train_step(mixture, recipe, options, THREAT, optimizer, rate, epsilon, **fields)
    return jax.jit(step), optimizer


@pytest.mark.parametrize(
    "name", [name if name in ("own", "likelihood") else at_night(name) for name in RECIPES]
)
def test_every_way_lowers_its_loss_on_one_batch(mixture, params, name):
    step, optimizer = stepper(mixture, RECIPES[name])
    state, losses = init_state(params, optimizer), []
    for _ in range(60):
        state, metrics = step(state, BATCH, jax.random.key(1))
        losses += [float(value) for metric, value in metrics.items() if metric.endswith("/loss")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_even_assignments_are_even_and_by_what_they_say(mixture, params):
    router, experts = np.asarray(mixture.route(params, X)), mixture.experts(params, X)
    own = by_own_choice(mixture, params, X, Y)
    likely = by_likelihood(mixture, params, X, Y)
    for chosen in (own, likely):
        assert np.bincount(chosen, minlength=EXPERTS).tolist() == [2] * EXPERTS
    prior = np.log(np.exp(router) / np.exp(router).sum(1, keepdims=True))
    loss = np.stack([cross_entropy(logits, Y) for logits in experts], axis=1)
    np.testing.assert_array_equal(likely, assign_evenly(jnp.asarray(prior - loss)))
    np.testing.assert_array_equal(own, assign_evenly(jnp.asarray(prior)))
    # Each part of the score counts: without either the assignment is another.
    for other in (prior, -loss):
        assert (np.asarray(likely) != np.asarray(assign_evenly(jnp.asarray(other)))).any()


def test_the_loss_is_that_of_the_assigned_expert_and_the_router_learns_it(mixture, params):
    assign = RECIPES["cluster"]
    (phase,) = assign(mixture, THREAT, RecipeOptions())
    chosen = by_cluster(CENTRES.astype(np.float32), appearance)(mixture, params, X, Y)
    distance = np.square(np.asarray(appearance(X))[:, None] - CENTRES[None]).sum(-1)
    np.testing.assert_array_equal(chosen, distance.argmin(1))
    experts = mixture.experts(params, X)
    expected = [
        cross_entropy(experts[c, i][None], Y[i : i + 1])[0]
        - jax.nn.log_softmax(mixture.route(params, X)[i])[c]
        for i, c in enumerate(np.asarray(chosen))
    ]
    np.testing.assert_allclose(phase.loss(params, X, Y, None), expected, rtol=1e-5)


def test_experts_can_be_known_beforehand(mixture, params):
    experts = np.arange(200) * 7 % EXPERTS
    step, optimizer = stepper(mixture, specialists_of(experts))
    _, metrics = step(init_state(params, optimizer), BATCH, jax.random.key(0))
    own = experts[BATCH.index]
    outputs = mixture.experts(params, X)[own, np.arange(len(X))]
    trust = jax.nn.log_softmax(mixture.route(params, X))[np.arange(len(X)), own]
    expected = jnp.mean(cross_entropy(outputs, Y) - trust)
    np.testing.assert_allclose(metrics["specialists/loss"], expected, rtol=1e-5)


def test_expert_choice_sums_the_experts_that_chose_a_clip(mixture, params):
    (phase,) = expert_choice(mixture, THREAT, RecipeOptions())
    weights = np.asarray(jax.nn.softmax(mixture.route(params, X)))
    experts = np.asarray(mixture.experts(params, X))
    logits = np.zeros((8, experts.shape[-1]), np.float32)
    for expert in range(EXPERTS):
        for clip in np.argsort(-weights[:, expert])[:2]:
            logits[clip] += weights[clip, expert] * experts[expert, clip]
    np.testing.assert_allclose(
        phase.loss(params, X, Y, None), cross_entropy(jnp.asarray(logits), Y), rtol=1e-4
    )


def test_an_expert_that_no_example_reaches_stays_as_it_is_to_the_bit(mixture):
    """After steps that moved it: momentum and weight decay would move it on."""
    params = mixture.init(jax.random.key(3), None)
    biased = from_functions(
        lambda p, x: mixture.route({"router": p}, x) * 0 + p["favour"][None],
        lambda p, x: mixture.expert({"experts": jax.tree.map(lambda leaf: leaf[None], p)}, x, 0),
        num_experts=EXPERTS,
    )
    start = {
        "router": {**params["router"], "favour": jnp.zeros(EXPERTS)},
        "experts": params["experts"],
    }

    def to_second(mixture, params, x, y):
        return jnp.ones(len(x), jnp.int32)

    def to_first(mixture, params, x, y):
        return jnp.zeros(len(x), jnp.int32)

    first, optimizer = stepper(biased, specialists(to_first))
    second, _ = stepper(biased, specialists(to_second))
    state, _ = first(init_state(start, optimizer), BATCH, jax.random.key(0))
    later, _ = second(state, BATCH, jax.random.key(0))

    def of(tree, expert):
        return [np.asarray(leaf)[expert] for leaf in jax.tree.leaves(tree) if np.ndim(leaf)]

    for part in (lambda s: s.params["experts"], lambda s: s.optimizer["experts"]):
        for before, after in zip(of(part(state), 0), of(part(later), 0), strict=True):
            np.testing.assert_array_equal(before, after)
        moved = zip(of(part(state), 1), of(part(later), 1), strict=True)
        assert any((before != after).any() for before, after in moved)


def test_the_standard_mixtures_idle_experts_stay_too(mixture):
    """The other experts of F_S stay, in a dual model whose F_S sends all clips to one expert."""
    dual = dual_mixture(mixture, mixture, 0.5)
    params = dual.init(jax.random.key(3), None)
    # Logits grow with the clip's brightness for expert 0 alone.
    router = np.zeros_like(params["standard"]["router"]["w"])
    router[:, 0] = 1.0
    params = {**params, "standard": {**params["standard"], "router": {"w": jnp.asarray(router)}}}

    def recipe(mixture, threat, options):
        def loss(params, x, y, found):
            return cross_entropy(mixture.apply(params, x), y)

        return (Phase("dual", None, loss, frozenset({"standard"})),)

    step, optimizer = stepper(dual, recipe)
    state, _ = step(init_state(params, optimizer), BATCH, jax.random.key(0))
    for name, leaf in params["standard"]["experts"].items():
        after = state.params["standard"]["experts"][name]
        np.testing.assert_array_equal(after[1:], leaf[1:])
        assert (np.asarray(after[0]) != np.asarray(leaf[0])).any()


@pytest.mark.parametrize(
    ("recipe", "balance", "noise"), [(RECIPES["own"], 1.0, 0.0), at_night(standard, 0.0, 0.4)]
)
def test_balance_and_noise_fall_with_their_share(mixture, params, recipe, balance, noise):
    def after(part, **fields):
        options = RecipeOptions(balance_weight=part * balance, router_noise=part * noise)
        step, optimizer = stepper(mixture, recipe, options, **fields)
        return step(init_state(params, optimizer), BATCH, jax.random.key(1))[0].params

    falling = after(1.0, spread=lambda step: 0.5)
    for got, want in zip(*map(jax.tree.leaves, (falling, after(0.5))), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_clips_that_stand_for_all_are_of_all_classes():
    records = [(label, i) for label in range(10) for i in range(MOST)]
    drawn = draw_records(records, seed=0)
    assert len(drawn) == MOST
    assert drawn == sorted(set(drawn)) == draw_records(records, seed=0)
    assert np.bincount([label for label, _ in drawn], minlength=10).min() > MOST / 20
    assert draw_records(records[:7], seed=0) == records[:7]


def test_clusters_find_what_colour_tells_and_are_the_same_every_time():
    rng = np.random.default_rng(0)
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
    kind = np.arange(90) % 3
    clip = (colours[kind][:, None, None, None] * rng.uniform(0.7, 1.0, (90, 2, 4, 4, 1))).astype(
        np.uint8
    )
    batches = [
        {"clip": part, "valid": np.arange(len(part)) < 40} for part in (clip[:45], clip[45:])
    ]
    centres = find_centres(batches, 3, seed=0)
    np.testing.assert_array_equal(centres, find_centres(batches, 3, seed=0))
    chosen = by_cluster(centres, appearance)(None, None, clip.astype(np.float32) / 255, None)
    assert len({(k, int(c)) for k, c in zip(kind, chosen, strict=True)}) == 3
