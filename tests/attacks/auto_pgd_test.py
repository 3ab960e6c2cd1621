"""Auto-PGD: against a plain loop of the published algorithm, one example at a time, in NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings, build_attack, cross_entropy, difference_of_logits_ratio
from jaxmoe.attacks.auto_pgd import maximize, schedule
from jaxmoe.attacks.objectives import is_right
from jaxmoe.threat import ThreatModel, example_keys
from tests.night import at_night

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
RNG = np.random.default_rng(0)
B, D, K, STEPS = 6, 12, 5, 40
X = RNG.uniform(0.2, 0.8, (B, 2, 2, 3))
PARAMS = {"w": 3 * RNG.normal(size=(D, 8)), "v": RNG.normal(size=(8, K))}
CLIPS = jnp.asarray(X, jnp.float32)
WEIGHTS = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)


def model(params, x):
    return jnp.sin(x.reshape(x.shape[0], -1) @ params["w"]) @ params["v"]


Y = np.asarray(jnp.argmax(model(WEIGHTS, CLIPS), -1))


def plain_look(clip, label):
    """Cross-entropy and its gradient."""
    inner = clip.ravel() @ PARAMS["w"]
    logits = np.sin(inner) @ PARAMS["v"]
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    loss = -np.log(weights[label])
    weights[label] -= 1
    gradient = PARAMS["w"] @ (np.cos(inner) * (PARAMS["v"] @ weights))
    return loss, gradient.reshape(clip.shape), logits.argmax() == label


def plain_project(z, x, norm, epsilon):
    delta = z - x
    if norm == "linf":
        delta = np.clip(delta, -epsilon, epsilon)
    else:
        delta *= min(1, epsilon / max(np.sqrt((delta**2).sum()), 1e-12))
    return np.clip(x + delta, 0, 1)


def plain_auto_pgd(x, start, label, norm, epsilon):
    """Losses of all iterates, the result and its loss, and whether an iterate was wrong."""
    losses = []
    loss, gradient, right = plain_look(start, label)
    best, best_loss, best_gradient = start, loss, gradient
    wrong = [] if right else [(loss, start)]
    losses.append(loss)
    step, before, halved = 2 * epsilon, loss, True
    current, previous = start, start
    window, checkpoint, lengths = int(0.22 * STEPS), 0, {}
    while checkpoint + window <= STEPS:
        checkpoint += window
        lengths[checkpoint] = window
        window = max(window - max(int(0.03 * STEPS), 1), max(int(0.06 * STEPS), 1))
    history = [0.0]  # of the authors' code: the first comparison is with 0
    for number in range(STEPS):
        direction = np.sign(gradient) if norm == "linf" else gradient / np.linalg.norm(gradient)
        ahead = plain_project(current + step * direction, x, norm, epsilon)
        share = 1.0 if number == 0 else 0.75
        moved = current + share * (ahead - current) + (1 - share) * (current - previous)
        previous, current = current, plain_project(moved, x, norm, epsilon)
        loss, gradient, right = plain_look(current, label)
        losses.append(loss)
        history.append(loss)
        if not right:
            wrong.append((loss, current))
        if loss > best_loss:
            best, best_loss, best_gradient = current, loss, gradient
        if number + 1 in lengths:
            length = lengths[number + 1]
            recent = history[-length - 1 :]
            rises = sum(b > a for a, b in itertools.pairwise(recent))
            halve = rises <= 0.75 * length or (not halved and best_loss <= before)
            before, halved = best_loss, halve
            if halve:
                step /= 2
                current, gradient = best, best_gradient
    found_loss, found = max(wrong or [(best_loss, best)], key=lambda pair: pair[0])
    return np.array(losses), found, found_loss, bool(wrong)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.01), ("l2", 0.04)])
def test_it_is_the_published_algorithm(norm, epsilon):
    keys = example_keys(jax.random.key(0), jnp.arange(B))

    @functools.partial(jax.jit, compiler_options=FAST)
    def run(x, params):
        threat = ThreatModel(norm, epsilon)

        def look(x_adv):
            logits = model(params, x_adv)
            return cross_entropy(logits, jnp.asarray(Y)), is_right(logits, jnp.asarray(Y))

        return threat.surface_start(keys, x), *maximize(keys, x, look, threat, STEPS)

    with jax.enable_x64(True):
        start, result, failed = run(jnp.asarray(X), jax.tree.map(jnp.asarray, PARAMS))
    assert 0 < np.sum(failed) < B
    for i in range(B):
        losses, found, loss, wrong = plain_auto_pgd(X[i], np.asarray(start[i]), Y[i], norm, epsilon)
        np.testing.assert_allclose(result.loss_trace[:, i], losses, rtol=1e-6)
        np.testing.assert_allclose(result.x_adv[i], found, atol=1e-8)
        np.testing.assert_allclose(result.loss[i], loss, rtol=1e-6)
        assert bool(failed[i]) == wrong


@pytest.mark.parametrize("early_stop", [False, True])
def test_of_wrong_iterates_the_one_of_the_greatest_loss_is_kept_with_its_loss(early_stop):
    # Right around the peak of the loss, where the climb ends, and wrong on both of its slopes.
    def look(x_adv):
        distance = jnp.abs(x_adv[:, 0, 0] - jnp.array([0.45, 0.5, 0.55]))
        return -distance, distance < 0.02

    x = jnp.full((3, 1, 1), 0.5)
    keys = example_keys(jax.random.key(1), jnp.arange(3))
    threat = ThreatModel("linf", 0.2)

    @jax.jit
    def run(keys, x):
        return maximize(keys, x, look, threat, 30, early_stop=early_stop)

    result, failed = run(keys, x)
    assert failed.all()
    np.testing.assert_array_equal(result.loss, look(result.x_adv)[0])
    seen = np.asarray(result.loss_trace)[: int(result.gradients)]
    wrong = np.where(seen <= -0.02, seen, -np.inf)
    np.testing.assert_array_equal(result.loss, wrong.max(0))
    last = [losses[losses <= -0.02][-1] for losses in seen.T]
    assert early_stop or (result.loss > np.array(last)).any()  # it may be another


def test_checkpoints_are_the_papers():
    first, windows, checkpoints = schedule(100)
    assert (np.flatnonzero(checkpoints) + 1).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert windows[0] == 22
    assert windows[22] == 19
    assert first.tolist() == [True] + [False] * 99


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        *(("apgd-ce", "linf"), ("apgd-dlr", "l2"), ("apgd-t", "linf")),
        *(at_night("apgd-ce", "l2"), at_night("apgd-dlr", "linf"), at_night("apgd-t", "l2")),
    ],
)
def test_it_breaks_as_many_as_pgd(name, norm):
    threat = ThreatModel(norm, 0.012 if norm == "linf" else 0.04)

    def robust(name):
        attack = build_attack(name, model, threat, AttackSettings(steps=50))
        result = jax.jit(attack, compiler_options=FAST)(jax.random.key(0), WEIGHTS, CLIPS, Y)
        return np.asarray(jnp.argmax(model(WEIGHTS, result.x_adv), -1) == Y)

    by_pgd = robust("pgd").sum()
    assert by_pgd < B
    assert robust(name).sum() <= by_pgd


def test_no_scale_of_the_logits_hides_the_gradient_from_the_ratio():
    threat = ThreatModel("linf", 0.06)

    def robust(name, scale):
        attack = build_attack(
            name, lambda p, x: scale * model(p, x), threat, AttackSettings(steps=30)
        )
        result = jax.jit(attack, compiler_options=FAST)(jax.random.key(0), WEIGHTS, CLIPS, Y)
        return np.asarray(jnp.argmax(model(WEIGHTS, result.x_adv), -1) == Y)

    assert robust("apgd-ce", 1e6).sum() > robust("apgd-dlr", 1e6).sum()
    np.testing.assert_array_equal(robust("apgd-dlr", 1e6), robust("apgd-dlr", 1.0))


def test_ratio_of_differences():
    logits, label = jnp.array([[4.0, 1.0, 3.0, -2.0]]), jnp.array([2])
    np.testing.assert_allclose(difference_of_logits_ratio(logits, label), (4 - 3) / (4 - 1))


@pytest.mark.parametrize("epsilon", [0.01, 0.3])
def test_it_stops_where_every_example_is_wrong_and_not_before(epsilon):
    def attack(early_stop):
        settings = AttackSettings(steps=STEPS, early_stop=early_stop)
        run = build_attack("apgd-ce", model, ThreatModel("linf", epsilon), settings)
        return jax.jit(run, compiler_options=FAST)(jax.random.key(0), WEIGHTS, CLIPS, Y)

    whole, early = attack(early_stop=False), attack(early_stop=True)
    wrong = jnp.argmax(model(WEIGHTS, whole.x_adv), -1) != Y
    np.testing.assert_array_equal(jnp.argmax(model(WEIGHTS, early.x_adv), -1) != Y, wrong)
    taken = int(early.gradients)
    assert whole.gradients == STEPS + 1
    assert (taken < STEPS + 1) == bool(wrong.all())
    np.testing.assert_array_equal(early.loss_trace[:taken], whole.loss_trace[:taken])
    np.testing.assert_array_equal(
        early.loss_trace[taken:], np.tile(early.loss, (STEPS + 1 - taken, 1))
    )


def test_its_program_holds_the_gradient_once():
    def model(params, x):
        return jnp.sin(x.reshape(len(x), -1) @ params)

    attack = build_attack("apgd-ce", model, ThreatModel("linf", 0.1), AttackSettings(steps=20))
    x, params = np.full((2, 4, 4, 3), 0.5, np.float32), np.ones((48, 4), np.float32)
    program = jax.jit(attack).lower(jax.random.key(0), params, x, np.zeros(2, int)).as_text()
    assert program.count("stablehlo.cosine") == 1, "the derivative of the sine"
