"""Universal perturbations: one change for all clips, or one for each class, made on training clips.

What is found depends on no clip that is attacked later; `apply_universal` only adds it.
References: Moosavi-Dezfooli et al. 2017 (https://arxiv.org/abs/1610.08401); ascent on the clipped
loss by mini-batches: Shafahi et al. 2020 (https://arxiv.org/abs/1811.11304).

Axes: B = batch, P = perturbations: 1 for all clips, or K, one for each class.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmoe.attacks.attack import Attack, Model, as_apply
from jaxmoe.attacks.compiled import logits_of, program
from jaxmoe.attacks.edge import (
    as_key,
    check_label_shape,
    check_labels,
    check_params,
    check_pixels,
    to_pixels,
)
from jaxmoe.attacks.objectives import cross_entropy
from jaxmoe.attacks.perturb import AttackResult, is_finite, spread
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.attacks.updates import steepest_direction
from jaxmoe.threat import ThreatModel

# In nats. A clip whose label has less probability than e⁻⁹ is lost already: it pulls no more, and
# the sum over a batch cannot become the cause of a few clips with huge losses.
LARGEST_LOSS = 9.0

Delta = Float[Array, "perturbations ..."]
Step = Callable[[Delta, Any, Array, Array, Array], Delta]
"""`(delta, params, x, y, valid) -> delta`."""


def universal_step(
    model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Step:
    """One step of projected steepest ascent on Σ_b min(CE(F(x_b + δ), y_b), 9), over a batch.

    `step(delta, params, x, y, valid) -> delta` adds α ε times the sign (ℓ∞) or the direction (ℓ2)
    of the gradient, summed over the examples of a perturbation, and goes back into the ball.

    Of the step's arguments, `delta` is [P, …] in pixel units, `x` [B, …] pixels in [0, 1], `y`
    int [B] (dense labels where P = 1), `valid` bool [B]: others do not count. A perturbation none
    of whose examples is in the batch stays; one that met a loss or a gradient that was not finite
    becomes NaN.

    Raises:
      ValueError: a threat model with an ε or frames for each example; on use, labels that name no
        class of an example where P > 1.
    """
    _check_shared(threat)
    apply = as_apply(model, settings)

    def step(delta, params, x, y, valid):
        which = _which(delta, y)
        moved = x + delta[which]

        def total(x_adv):
            losses = cross_entropy(apply(params, x_adv), y)
            return jnp.sum(jnp.minimum(losses, LARGEST_LOSS)), losses

        gradient, losses = jax.grad(total, has_aux=True)(threat.project(moved, x))
        broken = valid & ~(is_finite(gradient) & jnp.isfinite(losses))
        # A pixel that the box holds does not follow δ: it has no say in where δ goes.
        low, high = threat.bounds
        counts = spread(valid, x) & (moved >= low) & (moved <= high)
        pool = functools.partial(
            jax.ops.segment_sum, segment_ids=which, num_segments=delta.shape[0]
        )
        gradient = pool(threat.mask(jnp.where(counts, gradient, 0)))
        gradient = jnp.where(spread(pool(broken.astype(x.dtype)) > 0, x), jnp.nan, gradient)
        length = jnp.asarray(settings.alpha * threat.epsilon, x.dtype)
        ahead = delta + length * steepest_direction(threat.norm, gradient)
        return _without_box(threat).project(ahead, jnp.zeros_like(delta))

    return step


def fit_universal(
    key: Key[Array, ""],
    model: Model,
    params: Any,
    batches: Callable[[], Iterable[dict[str, Any]]],
    *,
    threat: ThreatModel,
    settings: AttackSettings = AttackSettings(),
    epochs: int,
    num_classes: int | None = None,
) -> Delta:
    """Makes a universal perturbation of `model` on the clips of `batches`.

    It starts from noise no longer than one step, where a gradient that is 0 on clean clips may not
    be. Steps shrink from pass to pass: pass e = 0, 1, … has steps of α ε (1 − e / epochs). Within a
    pass every clip has the same say; were all steps alike, the last few batches would decide alone.
    One program serves all ε and all α.

    Args:
      key: of the start, or a seed.
      model: a mixture, with the gradient that `settings` name, or `(params, x) -> logits`.
      params: its params.
      batches: makes one pass of dicts with `clip` (uint8, or floats in [0, 1], [B, …]), `label`
        [B] and `valid` [B]. TRAINING clips: on those that made it a perturbation proves nothing.
      threat: ball and frames; ε and frames are the same for all examples.
      settings: `alpha` and `gradient` are used.
      epochs: passes, ≥ 1.
      num_classes: K for one perturbation for each class; None for one for all.

    Returns:
      δ, [1, …] or [K, …], in the ball; the box is `apply_universal`'s.

    Raises:
      ValueError: no pass, no valid clip, pixels outside of [0, 1], labels of no class, or a
        threat model with an ε or frames for each example.
      FloatingPointError: a loss or a gradient was not finite.
    """
    if epochs < 1:
        raise ValueError(f"epochs: {epochs} is not accepted; expected at least 1")
    _check_shared(threat)
    check_params(params)
    step, key = program(_step, model), as_key(key)
    delta, steps, clips = None, 0, 0
    for epoch in range(epochs):
        shorter = jnp.float32(settings.alpha * (1 - epoch / epochs))
        shortened = dataclasses.replace(settings, alpha=shorter)
        for batch in batches():
            x, y, valid = _read(model, params, batch, threat.bounds, num_classes)
            if delta is None:
                delta = _start(key, x, threat, settings, num_classes or 1)
            steps, clips = steps + 1, clips + valid.sum()
            delta = step(delta, params, x, y, valid, threat, shortened)
            if not np.isfinite(delta).all():
                raise FloatingPointError(
                    f"universal perturbation: a loss or gradient that is not finite in step "
                    f"{steps}; the model is broken on the training examples of that batch"
                )
    if not clips:
        raise ValueError("batches: no valid example to make a universal perturbation on")
    return delta


def apply_universal(
    delta: Delta, threat: ThreatModel, x: Float[Array, "batch ..."], y: Int[Array, "batch ..."]
) -> Float[Array, "batch ..."]:
    """`x + δ`, or `x + δ_y` where there is one for each class, in the ball and the box."""
    x, y = to_pixels(x, threat.bounds), jnp.asarray(y)
    delta = jnp.asarray(delta, x.dtype)
    return threat.project(x + delta[_which(delta, y)], x)


def universal_attack(delta: Delta, threat: ThreatModel) -> Attack:
    """The attack that adds `delta`: it looks at no clip, takes no gradient and has no loss."""

    def attack(key, params, x, y):
        del key, params
        x = to_pixels(x, threat.bounds)
        nothing = jnp.zeros(x.shape[0], x.dtype)
        return AttackResult(
            x_adv=apply_universal(delta, threat, x, y),
            loss=nothing,
            loss_trace=nothing[None],
            gradients=jnp.asarray(0),
            zero_gradient=nothing,
            finite=jnp.ones(x.shape[0], bool),
        )

    return attack


def _step(model, delta, params, x, y, valid, threat, settings):
    return universal_step(model, threat, settings)(delta, params, x, y, valid)


@functools.partial(jax.jit, static_argnums=4)
def _start(
    key: Key[Array, ""],
    x: Float[Array, "batch ..."],
    threat: ThreatModel,
    settings: AttackSettings,
    count: int,
) -> Delta:
    """Noise in the ball of radius min(α, 1) ε: the first step can undo it."""
    nowhere = jnp.zeros((count, *x.shape[1:]), x.dtype)
    share = jnp.minimum(jnp.asarray(settings.alpha, x.dtype), 1)
    ball = dataclasses.replace(_without_box(threat), epsilon=share * threat.epsilon)
    return ball.random_start(key, nowhere)


def _without_box(threat: ThreatModel) -> ThreatModel:
    """The ball and the frames alone, around 0: δ itself is no clip and may be negative."""
    return dataclasses.replace(threat, bounds=(-float("inf"), float("inf")))


def _which(delta: Delta, y: Int[Array, "batch ..."]) -> Int[Array, " batch"]:
    """Returns the number of the perturbation that each example gets, [B]."""
    if delta.shape[0] == 1:
        return jnp.zeros(y.shape[0], jnp.int32)
    if y.ndim != 1:
        raise ValueError(
            f"label: shape {y.shape} names no class of an example; one perturbation for each of "
            f"{delta.shape[0]} classes expects [batch]"
        )
    return y.astype(jnp.int32)


def _read(
    model: Model, params: Any, batch: dict[str, Any], bounds: tuple, num_classes: int | None
) -> tuple[Array, Array, Bool[Array, " b"]]:
    clip, label, valid = (np.asarray(batch[name]) for name in ("clip", "label", "valid"))
    check_pixels(clip[valid], bounds)
    x = to_pixels(clip, bounds)
    logits = logits_of(model, params, x).shape
    check_label_shape(label, logits)
    if valid.any():
        check_labels(label[valid], num_classes or logits[-1])
    return x, jnp.asarray(label, jnp.int32), valid


def _check_shared(threat: ThreatModel) -> None:
    for name, value, most in (("epsilon", threat.epsilon, 0), ("frames", threat.frames, 1)):
        if value is not None and jnp.ndim(value) > most:
            raise ValueError(
                f"threat.{name}: shape {jnp.shape(value)} is one for each example; a universal "
                f"perturbation has one for all"
            )
