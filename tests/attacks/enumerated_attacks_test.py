"""Attempts for each expert and each target: against a plain loop in NumPy, and planted mixtures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings, build_attack, enumerated_attacks
from jaxmoe.attacks.auto_pgd import maximize
from jaxmoe.attacks.perturb import numbered_keys
from jaxmoe.mixture import from_functions, with_head
from jaxmoe.threat import ThreatModel, example_keys, per_example_keys
from tests.night import at_night

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
EPSILON, STEPS, RESTARTS, TARGETS = 0.06, 4, 2, 2
SETTINGS = AttackSettings(steps=STEPS, restarts=RESTARTS, targets=TARGETS, lam=1e-3)


def objectives(name, plain, clip, label):
    """The losses of one clip's attempts, `x_adv -> float`, in plain NumPy."""
    ce, route = plain.cross_entropy, plain.route(clip)
    output = plain.apply(clip)
    targets = [c for c in np.argsort(-output) if c != label][:TARGETS]
    chosen = plain.chosen(clip)
    weights = plain.softmax(route)[chosen]
    weights /= weights.sum()

    def of_experts(z, t):
        return sum(w * ce(plain.expert(z, i), t) for w, i in zip(weights, chosen, strict=True))

    def joint(z, t):
        weights, clean = plain.softmax(plain.route(z)), plain.softmax(route)
        router = ce(plain.route(z), route.argmax()) - ce(plain.route(z), route.argmin())
        router += SETTINGS.lam * plain.quotient(weights, clean, z, clip)
        quotient = plain.quotient(plain.apply(z), output, z, clip)
        return -ce(plain.apply(z), t) + SETTINGS.lam * quotient + SETTINGS.gamma2 * router

    return {
        "pgd-each-e": [lambda z, j=j: ce(plain.expert(z, j), label) for j in range(3)],
        "pgd-t": [lambda z, t=t: -ce(plain.apply(z), t) for t in targets],
        "pgd-r-t": [lambda z, j=j: -ce(plain.route(z), j) for j in np.argsort(-route)[1:]],
        "pgd-e-t": [lambda z, t=t: -of_experts(z, t) for t in targets],
        "j-tlga-t": [lambda z, t=t: joint(z, t) for t in targets],
    }[name]


def slopes(loss, z, step=1e-6):
    gradient = np.zeros_like(z)
    for place in np.ndindex(z.shape):
        there = np.zeros_like(z)
        there[place] = step
        gradient[place] = (loss(z + there) - loss(z - there)) / (2 * step)
    return gradient


def climb(loss, start, clip, *, temporal):
    """Losses of all iterates, and the best of them: constant or temporal steps, clip [T, …]."""
    z, seen, velocity = start, [], 0.0
    for number in range(STEPS + 1):
        seen.append((loss(z), z))
        if number < STEPS:
            gradient = slopes(loss, z)
            length = SETTINGS.alpha * EPSILON
            if temporal:
                frames = np.sqrt((gradient**2).sum(tuple(range(1, z.ndim)), keepdims=True))
                velocity = SETTINGS.decay * velocity + frames
                length = SETTINGS.temporal_alpha * EPSILON / (1 + np.log1p(np.sqrt(velocity)))
            z = clip + np.clip(z + length * np.sign(gradient) - clip, -EPSILON, EPSILON)
            z = np.clip(z, 0, 1)
    losses = [value for value, _ in seen]
    return losses, seen[int(np.argmax(losses))][1]


@pytest.mark.parametrize(
    ("name", "top_k"),
    [
        *(("pgd-each-e", 1), ("pgd-r-t", 1), ("j-tlga-t", 2)),
        *(at_night("pgd-each-e", 2), at_night("pgd-r-t", 2), at_night("j-tlga-t", 1)),
        *(at_night(name, top_k) for name in ("pgd-t", "pgd-e-t") for top_k in (1, 2)),
    ],
)
def test_it_is_a_plain_loop_over_attempts(small, reference, name, top_k):
    s = small()
    plain = reference(s, top_k)
    labels = np.array([plain.apply(clip).argmax() for clip in s.x])
    threat = ThreatModel("linf", EPSILON)
    keys = example_keys(jax.random.key(0), jnp.arange(len(s.x)))

    @functools.partial(jax.jit, compiler_options=FAST)
    def run(params, x, y):
        attempts = jnp.arange(3 * RESTARTS)
        starts = jax.vmap(
            lambda n: threat.random_start(numbered_keys(numbered_keys(keys, n), 0), x)
        )(attempts)
        return starts, build_attack(name, s.mixture(top_k), threat, SETTINGS)(keys, params, x, y)

    with jax.enable_x64(True):
        arrays = jax.tree.map(jnp.asarray, s.params), jnp.asarray(s.x), jnp.asarray(labels)
        starts, result = jax.tree.map(np.asarray, run(*arrays))

    broken = 0
    for i, (clip, label) in enumerate(zip(s.x, labels, strict=True)):
        losses, found = [], []
        for number, loss in enumerate(
            loss for loss in objectives(name, plain, clip, label) for _ in range(RESTARTS)
        ):
            trace, best = climb(loss, starts[number, i], clip, temporal=name == "j-tlga-t")
            losses += trace
            wrong = plain.apply(best).argmax() != label
            found.append((wrong, max(trace), best))
        np.testing.assert_allclose(result.loss_trace[:, i], losses, rtol=1e-4, atol=1e-8)
        winners = [attempt for attempt in found if attempt[0]]
        _, loss, best = max(winners or found, key=lambda attempt: attempt[1])
        np.testing.assert_allclose(result.x_adv[i], best, atol=1e-7)
        np.testing.assert_allclose(result.loss[i], loss, rtol=1e-4)
        broken += len(winners)
    # Some attempts break a clip and some do not: else the choice among them would show nothing.
    assert 0 < broken < len(losses) // (STEPS + 1) * len(s.x)
    assert result.finite.all()


@pytest.mark.parametrize(
    ("top_k", "headed"),
    [(2, True), *(at_night(*case) for case in ((1, False), (1, True), (2, False), (3, False)))],
)
def test_the_enumerated_route_fails_only_where_all_its_attempts_do(
    small, monkeypatch, top_k, headed
):
    s = small((60, 3, 2, 2, 1))
    mixture = bare = s.mixture(top_k)
    if headed:
        first = 0.3  # of the first expert, whatever the route is
        mixture = with_head(bare, lambda p, x, output: output + first * bare.expert(p, x, 0))
    x = jnp.asarray(s.x, jnp.float32)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), s.params)
    y = jnp.argmax(mixture.apply(params, x), axis=-1)

    def wrong():
        attack = build_attack("enumerated-route", mixture, ThreatModel("linf", 0.02), SETTINGS)
        x_adv = jax.jit(attack, compiler_options=FAST)(jax.random.key(0), params, x, y).x_adv
        return np.asarray(jnp.argmax(mixture.apply(params, x_adv), axis=-1) != y)

    one = dataclasses.replace(SETTINGS, restarts=1)
    monkeypatch.setitem(globals(), "SETTINGS", one)
    together, each = wrong(), []
    for j in range(mixture.num_experts):

        def alone(key, x, climb, targets, restarts, j=j):
            return climb(numbered_keys(per_example_keys(key, len(x)), j), targets[j])[0]

        monkeypatch.setattr(enumerated_attacks, "over_attempts", alone)
        each.append(wrong())
    np.testing.assert_array_equal(together, np.any(each, axis=0))
    assert 0 < together.sum() < len(x)


@pytest.mark.nightly
def test_the_enumerated_route_is_auto_pgd_on_each_route(small, reference):
    s = small()
    plain, mixture = reference(s), s.mixture()
    labels = np.array([plain.apply(clip).argmax() for clip in s.x])
    threat = ThreatModel("linf", EPSILON)
    keys = example_keys(jax.random.key(0), jnp.arange(len(s.x)))

    def log_loss(logits, label):
        return jax.nn.logsumexp(logits) - logits[label]

    @functools.partial(jax.jit, compiler_options=FAST)
    def run(params, x, y):
        attempts = []
        for j in range(3):

            def look(x_adv, j=j):
                router, logits = mixture.route(params, x_adv), mixture.experts(params, x_adv)[j]
                loss = jax.vmap(log_loss)(logits, y) - jax.vmap(log_loss, (0, None))(router, j)
                broken = (router.argmax(-1) == j) & (mixture.apply(params, x_adv).argmax(-1) != y)
                return loss, ~broken

            for n in range(RESTARTS):
                own = numbered_keys(keys, j * RESTARTS + n)
                attempts.append(maximize(own, x, look, threat, STEPS))
        return attempts, build_attack("enumerated-route", mixture, threat, SETTINGS)(
            keys, params, x, y
        )

    with jax.enable_x64(True):
        arrays = jax.tree.map(jnp.asarray, s.params), jnp.asarray(s.x), jnp.asarray(labels)
        attempts, result = jax.tree.map(np.asarray, run(*arrays))
    broken = np.array([failed for _, failed in attempts])
    assert broken.any()
    assert not broken.all()
    losses = np.array([result.loss for result, _ in attempts])
    for i in range(len(s.x)):
        best = np.argmax(broken[:, i] if broken[:, i].any() else losses[:, i])
        np.testing.assert_allclose(result.x_adv[i], attempts[best][0].x_adv[i], atol=1e-9)
        np.testing.assert_allclose(result.loss[i], losses[best, i])


# Planted: u, v are the mean pixels of frames 0 and 1; the label is 0.


def forked(value):
    """Option 1 is bait: it comes nearer where `value` rises, and never wins. 2 wins where it falls.

    The untargeted gradient leads to the bait.
    """
    rise = value - 0.5
    bait = 0.25 * jnp.tanh(40 * rise) - 0.3
    return jnp.stack([0 * rise, bait, -1 - 12 * rise], axis=-1)


def sides(value):
    """Class 0 where `value` is above ½, else class 1."""
    return jnp.stack([value - 0.5, 0.5 - value, 0 * value - 9], axis=-1)


def frames(x):
    return jnp.moveaxis(jnp.mean(x, axis=(2, 3, 4)), 1, 0)


def constant(*logits):
    return lambda u: jnp.broadcast_to(jnp.array(logits), (u.shape[0], len(logits)))


def survives(name, router, experts, level, epsilon=0.1):
    """Whether clips of flat frames with the pixels `level` are right under the attack."""
    mixture = from_functions(
        lambda params, x: params * router(frames(x)[0]),
        lambda index, x: jax.lax.switch(
            index, [lambda x, e=e: e(frames(x)[1]) for e in experts], x
        ),
        num_experts=len(experts),
        combine="none",
    )
    params = {"router": jnp.float32(1), "experts": jnp.arange(len(experts))}
    x = jnp.broadcast_to(jnp.array(level).reshape(1, 2, 1, 1, 1), (3, 2, 8, 8, 1))
    y = jnp.zeros(3, jnp.int32)
    settings = AttackSettings(steps=20, alpha=0.1)
    attack = build_attack(name, mixture, ThreatModel("linf", epsilon), settings)

    @functools.partial(jax.jit, compiler_options=FAST)
    def run(params):
        found = attack(jax.random.key(0), params, x, y)
        return mixture.apply(params, x), mixture.apply(params, found.x_adv)

    clean, attacked = (np.argmax(logits, -1) == 0 for logits in run(params))
    assert clean.all()
    assert attacked.all() == attacked.any()
    return attacked.all()


@pytest.mark.parametrize("name", ["pgd", "pgd-r", "pgd-e", "pgd-each-e", "enumerated-route"])
def test_only_the_enumerated_route_turns_the_route_and_breaks_where_it_leads(name):
    """Expert 0 is always right; expert 1 is right but near its boundary, and not chosen."""
    router = lambda u: 10 * jnp.stack([u - 0.5, 0.5 - u], axis=-1)  # noqa: E731
    experts = [lambda v: sides(v + 9), sides]
    assert survives(name, router, experts, (0.55, 0.55)) == (name != "enumerated-route")


@pytest.mark.parametrize(
    ("untargeted", "targeted"),
    [
        ("pgd", "pgd-t"),
        at_night("pgd-e", "pgd-e-t"),
        at_night("j-tlga", "j-tlga-t"),
        at_night("pgd-r", "pgd-r-t"),
    ],
)
def test_targets_lead_past_the_bait(untargeted, targeted):
    if targeted == "pgd-r-t":  # expert 2 is wrong, and 1 is bait
        router, experts = forked, [constant(1.0, 0.0, 0.0)] * 2 + [constant(0.0, 1.0, 0.0)]
    else:
        router, experts = constant(1.0, 0.0), [forked] * 2
    assert survives(untargeted, router, experts, (0.51, 0.51))
    assert not survives(targeted, router, experts, (0.51, 0.51))


@pytest.mark.parametrize("name", ["pgd-each-e", at_night("enumerated-route"), at_night("pgd-r-t")])
def test_a_grid_of_epsilon_is_one_program(small, name):
    s = small()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), s.params)
    x, y = jnp.asarray(s.x, jnp.float32), jnp.asarray(s.y, jnp.int32)

    def found(epsilon):
        attack = build_attack(
            name, s.mixture(), ThreatModel("linf", epsilon), AttackSettings(steps=3)
        )
        return attack(jax.random.key(0), params, x, y).x_adv

    grid = jnp.array([0.0, 0.02, 0.1], jnp.float32)
    one, curve = (jax.jit(f, compiler_options=FAST) for f in (found, jax.vmap(found)))
    curve = curve(grid)
    np.testing.assert_array_equal(curve[0], x)
    for epsilon, x_adv in zip(grid, curve, strict=True):
        np.testing.assert_allclose(x_adv, one(epsilon), atol=1e-6)


def test_toward_other_experts_there_must_be_another():
    alone = from_functions(lambda p, x: x[:, :1], lambda p, x: x, num_experts=1)
    with pytest.raises(ValueError, match=r"pgd-r-t .* mixture\.experts is 1"):
        build_attack("pgd-r-t", alone, ThreatModel())
