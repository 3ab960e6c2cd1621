"""FAB: walks to the nearest decision boundary, and back toward the clean input. Part of AutoAttack.

Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
algorithm 1 (https://arxiv.org/abs/1907.02044). It looks for the smallest change; where that is
within ε, the example is broken. Axes: B = batch, S = steps, K = classes, N = numbers of an example.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmoe.attacks.attack import Apply, Attack, Model, Params, as_apply
from jaxmoe.attacks.objectives import is_right, likeliest_targets, logit_of, margin
from jaxmoe.attacks.perturb import (
    AttackResult,
    is_finite,
    is_zero,
    numbered_keys,
    pick_attempts,
    spread,
    where_example,
)
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.choices import Norm
from jaxmoe.threat import ThreatModel, per_example_keys

LARGEST_BIAS = 0.1  # α_max: share of a step that goes to the clean input's own projection
OVERSHOOT = 1.05  # η: how far a step goes, 1 being the boundary
MOST_NEWTON_STEPS = 50  # of a projection; 5 to 10 are enough
WAY_BACK = 0.9  # β: what is left of a change that reached another class

Boundary = Callable[[Float[Array, "batch ..."]], tuple[Array, Array]]
"""`x -> (z_t − z_y [B], its gradient [B, …])`, t the class on the boundary's other side."""


def fab(model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()) -> Attack:
    """FAB: to the nearest of all K − 1 linearised boundaries, K gradients a step."""

    def attack(key, params, x, y):
        apply, keys = as_apply(model, settings), per_example_keys(key, x.shape[0])
        boundary = _nearest_boundary(apply, params, y, threat)
        hard = _hard(model, settings)

        def attempt(number):
            own, random = numbered_keys(keys, number), number > 0
            return search(own, x, y, hard, params, boundary, threat, settings.steps, random)

        result = _closest(attempt, settings.restarts)
        classes = jax.eval_shape(apply, params, x).shape[-1]
        return result._replace(gradients=result.gradients * classes)

    return attack


def fab_t(model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()) -> Attack:
    """FAB-T: to the boundary with each of the `settings.targets` likeliest wrong classes."""

    def attack(key, params, x, y):
        apply, keys = as_apply(model, settings), per_example_keys(key, x.shape[0])
        logits = apply(params, x)
        targets = likeliest_targets(logits, y, settings.targets, settings.first_target)
        hard = _hard(model, settings)

        def attempt(number):
            boundary = _boundary_with(apply, params, y, targets[number // settings.restarts])
            own, random = numbered_keys(keys, number), number % settings.restarts > 0
            return search(own, x, y, hard, params, boundary, threat, settings.steps, random)

        return _closest(attempt, targets.shape[0] * settings.restarts)

    return attack


def _hard(model: Model, settings: AttackSettings) -> Apply:
    """Tells whether a boundary was crossed, whatever gradient leads there."""
    return as_apply(model, dataclasses.replace(settings, gradient="hard"))


class _Search(NamedTuple):
    """State of `search`."""

    x_adv: Float[Array, "batch ..."]
    found: Float[Array, "batch ..."]  # the closest input of another class
    distance: Float[Array, " batch"]  # its distance; inf where there is none


def search(
    keys: Key[Array, " batch"],
    x: Float[Array, "batch ..."],
    y: Int[Array, " batch"],
    apply: Apply,
    params: Params,
    boundary: Boundary,
    threat: ThreatModel,
    steps: int,
    random_start: Bool[Array, ""] | bool,
) -> tuple[AttackResult, Float[Array, " batch"]]:
    """Looks for the closest input of another class, in the box and in the frames that may change.

    Returns:
      The closest input found, brought into the ball, with its loss there, and the distance that it
      was found at, inf for none.
    """

    def step(state: _Search, _):
        difference, gradient = boundary(state.x_adv)
        seen = (difference, is_zero(gradient), is_finite(gradient) & jnp.isfinite(difference))
        gradient = threat.mask(gradient)
        level = _dot(gradient, state.x_adv) - difference
        to_plane = change_to_plane(state.x_adv, gradient, level, threat)
        from_clean = change_to_plane(x, gradient, level, threat)
        near, far = (jnp.maximum(_size(change, threat), 1e-8) for change in (to_plane, from_clean))
        bias = spread(jnp.minimum(near / (near + far), LARGEST_BIAS), x)
        moved = (state.x_adv + OVERSHOOT * to_plane) * (1 - bias)
        moved = moved + (x + OVERSHOOT * from_clean) * bias
        moved = jnp.clip(moved, *threat.bounds)
        wrong = ~is_right(apply(params, moved), y)
        size = threat.size(moved, x)
        closer = wrong & (size < state.distance)
        return (
            _Search(
                where_example(wrong, x + (moved - x) * WAY_BACK, moved),
                where_example(closer, moved, state.found),
                jnp.where(closer, size, state.distance),
            ),
            seen,
        )

    # Restarts begin anywhere in half the ball.
    near = x + (threat.surface_start(keys, x) - x) / 2
    start = jnp.where(random_start, near, x)
    nothing = jnp.full(x.shape[0], jnp.inf, x.dtype)
    state, seen = jax.lax.scan(step, _Search(start, x, nothing), None, length=steps)
    differences, zero, finite = seen
    x_adv = threat.project(state.found, x)
    last = margin(apply(params, x_adv), y)
    result = AttackResult(
        x_adv,
        last,
        jnp.concatenate([differences, last[None]]),
        jnp.asarray(steps),
        jnp.mean(zero.astype(x.dtype), axis=0),
        jnp.all(finite, axis=0),
    )
    return result, state.distance


def change_to_plane(
    x: Float[Array, "batch ..."],
    normal: Float[Array, "batch ..."],
    level: Float[Array, " batch"],
    threat: ThreatModel,
) -> Float[Array, "batch ..."]:
    """The smallest change that takes `x` to the plane `normal · z = level` without leaving the box.

    A pixel moves by λ (ℓ∞) or λ |normal| (ℓ2) until it meets the box; what all move together makes
    up for the gap. Where even the box's corner falls short, the change is to the corner.

    λ is found by Newton's method from 0: what is gained is concave in λ and linear between the
    places where pixels meet the box, so that no step goes too far and a handful is exact. Sorting
    those places takes XLA a hundred times longer on a CPU.
    """
    batch = x.shape[0]
    low, high = threat.bounds
    points, slopes = x.reshape(batch, -1), normal.reshape(batch, -1)
    gap = level - jnp.sum(points * slopes, axis=1)  # what the product has to gain
    slopes = slopes * jnp.where(gap < 0, -1, 1)[:, None]
    gap = jnp.abs(gap)
    room = jnp.where(slopes > 0, high - points, points - low)
    speed = jnp.abs(slopes) if threat.norm == "l2" else jnp.ones_like(slopes)
    gain = jnp.abs(slopes) * speed  # of the product, for a unit of λ
    total = jnp.sum(gain, axis=1)

    def change(length):
        return jnp.minimum(length[:, None] * speed, room)

    def newton(state):
        length, _, steps = state
        gained = jnp.sum(jnp.abs(slopes) * change(length), axis=1)
        moving = jnp.sum(jnp.where(length[:, None] * speed < room, gain, 0), axis=1)
        missing = gap - gained
        # Rounding leaves a little of the sums where nothing moves any more.
        stuck = (moving <= 1e-6 * total) & (missing > 0)
        going = ~stuck & (missing > 1e-7 * gap)
        step = jnp.where(going, missing / jnp.maximum(moving, 1e-30), 0)
        return jnp.where(stuck, jnp.inf, length + step), going, steps + 1

    def unfinished(state):
        _, going, steps = state
        return jnp.any(going) & (steps < MOST_NEWTON_STEPS)

    none, everyone = jnp.zeros_like(gap), jnp.ones(batch, bool)
    length, _, _ = jax.lax.while_loop(unfinished, newton, (none, everyone, jnp.asarray(0)))
    # No pixel of infinite λ is slower than its room, but 0 · ∞ is no number.
    moved = jnp.where(gain > 0, change(jnp.minimum(length, jnp.finfo(x.dtype).max)), 0)
    return (jnp.sign(slopes) * moved).reshape(x.shape)


def _boundary_with(apply: Apply, params: Params, y: Array, target: Array) -> Boundary:
    """The boundary between each label and its target."""

    def boundary(x_adv):
        def difference(x_adv):
            logits = apply(params, x_adv)
            values = logit_of(logits, target) - logit_of(logits, y)
            return jnp.sum(values), values

        gradient, values = jax.grad(difference, has_aux=True)(x_adv)
        return values, gradient

    return boundary


def _nearest_boundary(apply: Apply, params: Params, y: Array, threat: ThreatModel) -> Boundary:
    """The nearest of the linearised boundaries between each label and all other classes."""

    def boundary(x_adv):
        logits, pull = jax.vjp(lambda x_adv: apply(params, x_adv), x_adv)
        differences = logits - logit_of(logits, y)[:, None]

        def one_hot(classes):
            return jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype)

        def closer(best, number):
            gradient = pull(one_hot(jnp.full_like(y, number)) - one_hot(y))[0]
            steepness = jnp.maximum(_dual_size(threat.mask(gradient), threat.norm), 1e-12)
            difference = differences[:, number]
            distance = jnp.where(y == number, jnp.inf, jnp.abs(difference) / steepness)
            nearer = distance < best[0]
            return (
                jnp.where(nearer, distance, best[0]),
                jnp.where(nearer, difference, best[1]),
                where_example(nearer, gradient, best[2]),
                best[3] & is_finite(gradient) & jnp.isfinite(difference),
            ), None

        none = jnp.full(x_adv.shape[0], jnp.inf, logits.dtype)
        everyone = jnp.ones(x_adv.shape[0], bool)
        first = (none, jnp.zeros_like(none), jnp.zeros_like(x_adv), everyone)
        last, _ = jax.lax.scan(closer, first, jnp.arange(logits.shape[-1], dtype=y.dtype))
        _, difference, gradient, finite = last
        # A class whose gradient is no number is never the nearest: it must not go unseen.
        return jnp.where(finite, difference, jnp.nan), gradient

    return boundary


def _closest(attempt: Callable, attempts: int) -> AttackResult:
    """Returns, example by example, the attempt that came closest."""
    if attempts == 1:
        return attempt(0)[0]
    results, distances = jax.lax.map(attempt, jnp.arange(attempts))
    return pick_attempts(results, jnp.argmin(distances, axis=0))


def _dot(a: Array, b: Array) -> Float[Array, " batch"]:
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)))


def _size(change: Array, threat: ThreatModel) -> Float[Array, " batch"]:
    return threat.size(change, jnp.zeros_like(change))


def _dual_size(gradient: Array, norm: Norm) -> Float[Array, " batch"]:
    axes = tuple(range(1, gradient.ndim))
    if norm == "linf":
        return jnp.sum(jnp.abs(gradient), axis=axes)
    return jnp.sqrt(jnp.sum(jnp.square(gradient), axis=axes))
