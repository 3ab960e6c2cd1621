"""Attacks on a whole classifier of clips that use time: TT, sparse frames and flicker.

Axes: B = batch, T = frames, H = height, W = width, C = channels, L = shifts to each side.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from jaxmoe.attacks.attack import Attack, Model, as_apply, constant_step
from jaxmoe.attacks.expectation import Expectation
from jaxmoe.attacks.objectives import cross_entropy
from jaxmoe.attacks.perturb import AttackResult, is_finite, is_zero, perturb
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.attacks.updates import momentum, steepest_direction
from jaxmoe.threat import ThreatModel


def tt(model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()) -> Attack:
    """TT: MI-FGSM on the mean CE(F) of the clip shifted cyclically by −L … L frames.

    L is `settings.shifts`; 0 is MI-FGSM. The means' weights are Gaussian (`shift_weights`). It is
    meant for transfer to other models, and takes 2L + 1 gradients a step. `y` is not shifted: a
    label belongs to a whole clip. The authors take L = 7 of 32 frames, and divide each frame's
    gradient by its own ℓ1 length before momentum; ours divides by the clip's, as MI-FGSM does.

    Raises:
      ValueError: on use, inputs of fewer than 3 axes.

    Reference: Wei et al. 2022 (https://arxiv.org/abs/2110.09075).
    """
    step = optax.chain(momentum(settings.decay), constant_step(threat, settings))

    def attack(key, params, x, y):
        _check_frames("temporal translation", x)
        loss = _classification_loss(model, settings, params, y)

        def shifted_loss(x_adv, number):
            return loss(jnp.roll(x_adv, number - settings.shifts, axis=1))

        weights = jnp.asarray(shift_weights(settings.shifts), x.dtype)
        mean = Expectation(shifted_loss, weights)
        loop = {**settings.loop, "restarts": 1, "random_start": False}
        result = perturb(key, x, mean, threat, step, **loop)
        return result._replace(gradients=result.gradients * len(weights))

    return attack


def sparse(
    model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """PGD on the `settings.sparse_frames` frames of each clip that matter most, among the allowed.

    Those are the ones in which the gradient of CE(F) at the clean clip has the largest ℓ2 norm.
    Wei et al. 2019, "Sparse adversarial perturbations for videos", minimise the change's ℓ2,1 norm
    under a mask of frames, chosen beforehand, with no ε; here the gradient picks the frames and ε
    bounds the change.

    Raises:
      ValueError: on use, inputs of fewer than 3 axes.

    Reference: Wei et al. 2019 (https://arxiv.org/abs/1803.02536).
    """

    def attack(key, params, x, y):
        _check_frames("sparse frames", x)
        loss = _classification_loss(model, settings, params, y)
        gradient = jax.grad(lambda x: jnp.sum(loss(x)))(x)
        frames = _most_sensitive_frames(gradient, threat, settings.sparse_frames)
        result = perturb(
            key,
            x,
            loss,
            dataclasses.replace(threat, frames=frames),
            constant_step(threat, settings),
            **settings.loop,
        )
        return _with_gradient(result, gradient, settings.steps * settings.restarts)

    return attack


def flicker(
    model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """Flickering: PGD on one colour offset for each frame, the same at every pixel.

    x' is x + offset, [B, T, 1, 1, C], clipped to the box. ℓ∞: |offset| ≤ ε; ℓ2: √(H W) ‖offset‖₂
    ≤ ε. The authors minimise a loss of the margin with regularisers of the offset's size and of
    its changes in time, without an ε; their regularisers are left out and the loss is CE(F).

    Raises:
      ValueError: on use, inputs that are not [B, T, H, W, C].

    Reference: Pony et al. 2021 (https://arxiv.org/abs/2002.05123).
    """

    def attack(key, params, x, y):
        if x.ndim != 5:
            raise ValueError(f"flicker: inputs of shape {x.shape}, not [B, T, H, W, C]")
        loss = _classification_loss(model, settings, params, y)
        offsets = _offset_threat(threat, pixels=x.shape[2] * x.shape[3])
        result = perturb(
            key,
            jnp.zeros_like(x[:, :, :1, :1]),
            lambda offset: loss(_add_in_box(x, offset, threat)),
            offsets,
            constant_step(offsets, settings),
            **settings.loop,
        )
        # What was added is rounded, pixel by pixel.
        return result._replace(x_adv=threat.project(_add_in_box(x, result.x_adv, threat), x))

    return attack


def shift_weights(shifts: int) -> np.ndarray:
    """Weights of the shifts −L … L, float64 [2L + 1] of sum 1: a Gaussian of σ = L / 3.

    As in the authors' code (https://github.com/zhipeng-wei/TT): the farthest shifts are 3 σ away.
    """
    sigma = max(shifts, 1) / 3
    density = np.exp(-np.square(np.arange(-shifts, shifts + 1) / sigma) / 2)
    return density / density.sum()


def _classification_loss(model, settings, params, y):
    """CE(F(x'), y), as an objective."""
    apply = as_apply(model, settings)
    return lambda x_adv: cross_entropy(apply(params, x_adv), y)


def _most_sensitive_frames(
    gradient: Float[Array, "batch time ..."], threat: ThreatModel, count: int
) -> Bool[Array, "batch time"]:
    """The `count` allowed frames, or all if they are fewer, whose gradient is longest."""
    within_frame = tuple(range(2, gradient.ndim))
    allowed = jnp.any(threat.mask(jnp.ones_like(gradient, dtype=bool)), axis=within_frame)
    # Of unit length first: squares of a confident model's gradients underflow.
    unit = steepest_direction("l2", threat.mask(gradient))
    length = jnp.where(allowed, jnp.sum(jnp.square(unit), axis=within_frame), -1)
    frames = gradient.shape[1]
    chosen = jax.lax.top_k(length, min(count, frames))[1]
    return jnp.any(jax.nn.one_hot(chosen, frames, dtype=bool), axis=1) & allowed


def _with_gradient(result: AttackResult, gradient: Array, taken: int) -> AttackResult:
    """`result` of `taken` gradients, and one more that was taken before."""
    zero = is_zero(gradient).astype(gradient.dtype)
    return result._replace(
        gradients=result.gradients + 1,
        zero_gradient=(result.zero_gradient * taken + zero) / (taken + 1),
        finite=result.finite & is_finite(gradient),
    )


def _offset_threat(threat: ThreatModel, pixels: int) -> ThreatModel:
    """The part that `threat` allows of an offset that is added to that many `pixels` of a frame."""
    epsilon = threat.epsilon / math.sqrt(pixels) if threat.norm == "l2" else threat.epsilon
    # An offset as large as the box moves every pixel to its end.
    width = threat.bounds[1] - threat.bounds[0]
    return dataclasses.replace(threat, epsilon=epsilon, bounds=(-width, width))


def _add_in_box(x: Array, offset: Array, threat: ThreatModel) -> Array:
    """`x + offset` in the box, where a pixel that was outside it when clean may stay."""
    low, high = threat.bounds
    return jnp.clip(x + offset, jnp.minimum(x, low), jnp.maximum(x, high))


def _check_frames(name: str, x: Array) -> None:
    if x.ndim < 3:
        raise ValueError(f"{name}: no frames in inputs of shape {x.shape}, not [B, T, …]")
