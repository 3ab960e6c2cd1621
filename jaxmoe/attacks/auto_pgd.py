"""Auto-PGD: PGD with momentum whose step size halves by itself. Part of AutoAttack.

Reference: Croce & Hein 2020, section 3 and algorithm 1 (https://arxiv.org/abs/2003.01690).
Axes: B = batch, S = steps, K = classes.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jaxmoe.attacks.attack import Attack, Model, as_apply, gradients_per_step, loss_of_logits
from jaxmoe.attacks.objectives import (
    cross_entropy,
    difference_of_logits_ratio,
    is_right,
    likeliest_targets,
    targeted_difference_of_logits_ratio,
)
from jaxmoe.attacks.perturb import (
    AttackResult,
    is_finite,
    is_zero,
    numbered_keys,
    spread,
    strongest_attempt,
    where_example,
)
from jaxmoe.attacks.randomized import Randomized
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.attacks.updates import steepest_direction
from jaxmoe.threat import ThreatModel, per_example_keys

FIRST_STEP = 2.0  # of ε
NEW_SHARE = 0.75  # of a new step; the rest is the last one again
RISES = 0.75  # ρ: where the loss rises in no larger share of a window's steps, the step halves
WINDOWS = 0.22, 0.03, 0.06  # of all steps: the first, how much shorter the next, the shortest

Look = Callable[[Float[Array, "batch ..."]], tuple[Float[Array, " batch"], Bool[Array, " batch"]]]
"""Per-example loss to maximise, and whether the model is right there."""


def apgd_ce(
    model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """APGD-CE: Auto-PGD on CE(F). AutoAttack takes 100 steps."""
    return _untargeted(model, threat, settings, cross_entropy)


def apgd_dlr(
    model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """APGD-DLR: Auto-PGD on the difference-of-logits ratio, which the logits' scale cannot mask."""
    return _untargeted(model, threat, settings, difference_of_logits_ratio)


def apgd_t(
    model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """APGD-T: Auto-PGD toward each of the `settings.targets` likeliest wrong classes, one by one.

    Every target has `settings.restarts` starts. There are K − 1 targets at most.
    """

    def attack(key, params, x, y):
        keys = per_example_keys(key, x.shape[0])
        logits = as_apply(model, settings)(params, x)
        targets = likeliest_targets(logits, y, settings.targets, settings.first_target)

        def attempt(number):
            target = targets[number // settings.restarts]

            def loss(logits):
                return targeted_difference_of_logits_ratio(logits, y, target)

            look = _look(model, settings, params, y, loss)
            own, until = numbered_keys(keys, number), settings.early_stop
            return maximize(own, x, look, threat, settings.steps, early_stop=until)

        return _counted(model, settings, attempt, targets.shape[0] * settings.restarts)

    return attack


def _untargeted(model: Model, threat: ThreatModel, settings: AttackSettings, objective) -> Attack:
    def attack(key, params, x, y):
        keys = per_example_keys(key, x.shape[0])
        look = _look(model, settings, params, y, lambda logits: objective(logits, y))

        def attempt(number):
            own, until = numbered_keys(keys, number), settings.early_stop
            return maximize(own, x, look, threat, settings.steps, early_stop=until)

        return _counted(model, settings, attempt, settings.restarts)

    return attack


def _look(model: Model, settings: AttackSettings, params, y, loss) -> Look:
    apply = as_apply(model, settings)
    if isinstance(model, Randomized) or settings.gradient == "soft":
        # The mean over draws, or the soft mixture, is climbed; what counts is the model itself.
        climbed = loss_of_logits(model, settings, params, loss)
        hard = as_apply(model, dataclasses.replace(settings, gradient="hard"))
        return lambda x_adv: (climbed(x_adv), is_right(hard(params, x_adv), y))

    def look(x_adv):
        logits = apply(params, x_adv)
        return loss(logits), is_right(logits, y)

    return look


def _counted(model: Model, settings: AttackSettings, attempt, attempts: int) -> AttackResult:
    result = strongest_attempt(attempt, attempts)
    return result._replace(gradients=result.gradients * gradients_per_step(model, settings))


class Climb(NamedTuple):
    """The state of `maximize`."""

    x_adv: Float[Array, "batch ..."]
    previous: Float[Array, "batch ..."]  # the iterate before
    gradient: Float[Array, "batch ..."]  # at x_adv
    loss: Float[Array, " batch"]  # at the last look
    step_size: Float[Array, " batch"]
    best: Float[Array, "batch ..."]  # the iterate of the greatest loss
    best_gradient: Float[Array, "batch ..."]
    best_loss: Float[Array, " batch"]
    wrong: Float[Array, "batch ..."]  # of iterates on which the model failed, the best by loss
    wrong_loss: Float[Array, " batch"]
    failed: Bool[Array, " batch"]  # whether there is one
    rises: Float[Array, " batch"]  # of the loss, in this window
    best_before: Float[Array, " batch"]  # best loss at the last checkpoint
    halved: Bool[Array, " batch"]  # whether the step was halved there


class _Loop(NamedTuple):
    """The loop of `maximize`."""

    number: Array  # shape=(), looks taken: one at the start, and one after each step
    state: Climb
    trace: Float[Array, "looks batch"]
    zeros: Float[Array, " batch"]  # gradients that were zero everywhere
    finite: Bool[Array, " batch"]


def maximize(
    keys: Key[Array, " batch"],
    x: Float[Array, "batch ..."],
    look: Look,
    threat: ThreatModel,
    steps: int,
    *,
    early_stop: bool = False,
) -> tuple[AttackResult, Bool[Array, " batch"]]:
    """Maximises the loss of `look` inside `threat`, as one compiled loop of `steps` steps.

    It takes `steps` + 1 gradients, or with `early_stop` as many as it takes until the model has
    failed on every example; the trace is then filled up with the greatest losses. Momentum,
    checkpoints and halvings are those of algorithm 1; at a halving an example goes back to its best
    iterate.

    Returns:
      The result, and whether the model failed on any iterate. `x_adv` is the iterate of the
      greatest loss among those on which it failed, or among all if there is none; `loss` is that
      iterate's. The first wrong iterate may be so barely wrong that another compiled program finds
      it right.
    """

    def value_and_gradient(x_adv):
        def total(x_adv):
            loss, right = look(x_adv)
            return jnp.sum(loss), (loss, right)

        gradient, (loss, right) = jax.grad(total, has_aux=True)(x_adv)
        finite = is_finite(gradient) & jnp.isfinite(loss)
        gradient = threat.mask(gradient)
        return gradient, loss, right, (loss, is_zero(gradient), finite)

    def step(state: Climb, number):
        # The look at the start is the loop's first: a gradient outside would be compiled twice.
        opening = number == 0
        first, window, checkpoint = (
            jnp.asarray(values)[jnp.maximum(number - 1, 0)] for values in plan
        )
        checkpoint &= ~opening
        x_adv = jnp.where(opening, state.x_adv, _step_ahead(state, x, threat, first))
        gradient, loss, right, seen = value_and_gradient(x_adv)
        state = _remember(state, x_adv, gradient, loss, right, opening)
        return _halve(state, window, checkpoint, opening), seen

    plan = schedule(steps)
    start = threat.surface_start(keys, x)
    batch, loss_dtype = x.shape[0], jax.eval_shape(look, start)[0].dtype
    state = _at_start(start, loss_dtype, threat.epsilon)

    def unfinished(loop: _Loop):
        going = loop.number <= steps
        return going & ~jnp.all(loop.state.failed) if early_stop else going

    def once(loop: _Loop):
        state, (loss, zero, finite) = step(loop.state, loop.number)
        return _Loop(
            loop.number + 1,
            state,
            loop.trace.at[loop.number].set(loss),
            loop.zeros + zero.astype(x.dtype),
            loop.finite & finite,
        )

    trace = jnp.zeros((steps + 1, batch), loss_dtype)
    zeros, finite = jnp.zeros(batch, x.dtype), jnp.ones(batch, bool)
    nothing_seen = _Loop(jnp.asarray(0), state, trace, zeros, finite)
    end = jax.lax.while_loop(unfinished, once, nothing_seen)
    state, taken = end.state, end.number
    looked = jnp.arange(steps + 1) < taken
    result = AttackResult(
        where_example(state.failed, state.wrong, state.best),
        jnp.where(state.failed, state.wrong_loss, state.best_loss),
        jnp.where(looked[:, None], end.trace, state.best_loss[None]),
        taken,
        end.zeros / taken.astype(x.dtype),
        end.finite,
    )
    return result, state.failed


def _at_start(start: Array, loss_dtype: jnp.dtype, epsilon: Array | float) -> Climb:
    """The state before the first look."""
    batch = start.shape[0]
    none, everyone = jnp.zeros(batch, start.dtype), jnp.ones(batch, bool)
    unseen = jnp.full(batch, -jnp.inf, loss_dtype)
    return Climb(
        x_adv=start,
        previous=start,
        gradient=jnp.zeros_like(start),
        loss=jnp.zeros(batch, loss_dtype),
        step_size=jnp.broadcast_to(jnp.asarray(FIRST_STEP * epsilon, start.dtype), (batch,)),
        best=start,
        best_gradient=jnp.zeros_like(start),
        best_loss=unseen,
        wrong=start,
        wrong_loss=unseen,
        failed=~everyone,
        rises=none,
        best_before=unseen,
        halved=everyone,
    )


def _step_ahead(state: Climb, x: Array, threat: ThreatModel, first: Array) -> Array:
    """The next iterate: a projected step, and a share of the last one but for the first."""
    length = spread(state.step_size, x)
    ahead = state.x_adv + length * steepest_direction(threat.norm, state.gradient)
    ahead = threat.project(ahead, x)
    share = jnp.where(first, 1.0, NEW_SHARE).astype(x.dtype)
    inertia = (1 - share) * (state.x_adv - state.previous)
    return threat.project(state.x_adv + share * (ahead - state.x_adv) + inertia, x)


def _remember(
    state: Climb, x_adv: Array, gradient: Array, loss: Array, right: Array, opening: Array
) -> Climb:
    """The state after a look at `x_adv`, with the best iterates so far."""
    better = loss > state.best_loss
    more_wrong = ~right & (~state.failed | (loss > state.wrong_loss))
    return state._replace(
        x_adv=x_adv,
        previous=state.x_adv,
        gradient=gradient,
        # The first rise is counted from 0, as the authors' code does.
        loss=jnp.where(opening, 0.0, loss),
        best=where_example(better, x_adv, state.best),
        best_gradient=where_example(better, gradient, state.best_gradient),
        best_loss=jnp.maximum(loss, state.best_loss),
        wrong=where_example(more_wrong, x_adv, state.wrong),
        wrong_loss=jnp.where(more_wrong, loss, state.wrong_loss),
        failed=state.failed | ~right,
        rises=state.rises + (~opening & (loss > state.loss)).astype(x_adv.dtype),
    )


def _halve(state: Climb, window: Array, checkpoint: Array, opening: Array) -> Climb:
    """The state after a checkpoint: examples that rose too seldom take half the step."""
    halve = state.rises <= RISES * window.astype(state.x_adv.dtype)
    halve |= ~state.halved & (state.best_before >= state.best_loss)
    halve &= checkpoint
    return state._replace(
        step_size=jnp.where(halve, state.step_size / 2, state.step_size),
        x_adv=where_example(halve, state.best, state.x_adv),
        gradient=where_example(halve, state.best_gradient, state.gradient),
        rises=jnp.where(checkpoint, 0, state.rises),
        best_before=jnp.where(opening | checkpoint, state.best_loss, state.best_before),
        halved=jnp.where(checkpoint, halve, state.halved),
    )


def schedule(steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each step: whether it is the first, its window's length, whether it is a checkpoint."""
    window, shorter, shortest = (max(int(share * steps), 1) for share in WINDOWS)
    windows, checkpoints, last = np.zeros(steps, np.float32), np.zeros(steps, bool), 0
    for number in range(steps):
        windows[number] = window
        if number + 1 - last == window:
            checkpoints[number], last = True, number + 1
            window = max(window - shorter, shortest)
    return np.arange(steps) == 0, windows, checkpoints
