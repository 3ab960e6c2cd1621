"""Steps of an attack as optax transformations: from a gradient to what is added to the input.

They ascend. `optax.chain` composes them: `chain(momentum(0.9), steepest_step("linf", 1 / 255))` is
MI-FGSM's. Axes: B = batch, T = frames. Step sizes are arrays to the compiler, shape [] or [B].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmoe.choices import AXES, DIRECTIONS, Axis, Direction, Norm
from jaxmoe.threat import example_norm


def steepest_step(norm: Norm, step_size: Array | float) -> optax.GradientTransformation:
    """The steepest ascent step: `step_size · sign(g)` (ℓ∞) or `step_size · g / ‖g‖₂` (ℓ2)."""

    def update(gradient, state, params=None):
        del params
        return _scale(steepest_direction(norm, gradient), step_size), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class MomentumState(NamedTuple):
    """State of `momentum`."""

    velocity: Float[Array, "batch ..."]


def momentum(decay: Array | float = 1.0) -> optax.GradientTransformation:
    """Momentum of MI-FGSM: `v ← decay · v + g / ‖g‖₁`, per example.

    Reference: Dong et al. 2018, algorithm 1 (https://arxiv.org/abs/1710.06081).
    """

    def init(params):
        return MomentumState(jnp.zeros_like(params))

    def update(gradient, state, params=None):
        del params
        axes = tuple(range(1, gradient.ndim))
        length = jnp.sum(jnp.abs(gradient), axis=axes, keepdims=True)
        velocity = _scale(state.velocity, decay)
        velocity = velocity + gradient / jnp.maximum(length, _tiny(gradient))
        return velocity, MomentumState(velocity)

    return optax.GradientTransformation(init, update)


class TemporalMomentumState(NamedTuple):
    """State of `temporal_momentum`."""

    velocity: Float[Array, "batch time"]
    step_sizes: Float[Array, "batch time"]  # of the last step, in pixel units


def temporal_momentum(
    norm: Norm,
    step_size: Array | float,
    decay: Array | float = 0.9,
    *,
    axis: Axis = "iterations",
    direction: Direction = "shorten",
) -> optax.GradientTransformation:
    """A step length for each frame from the momentum of that frame's gradient norm.

    With `n_{b,t} = ‖g_{b,t}‖₂`:
    `V_{b,t} ← decay · V_{b,t} + n_{b,t}` and `α_{b,t} = step_size / (1 + log(1 + √V_{b,t}))`.

    Args:
      norm: the direction, `steepest_direction`.
      step_size: α·ε in pixel units.
      decay: β, shape [] or [B] as step sizes.
      axis: `"iterations"` accumulates V over the attack's steps; `"frames"` along the frames of
        one gradient, V_{b,t} = decay · V_{b,t−1} + n_{b,t}, with no memory between steps.
      direction: `"shorten"`, the published formula; `"boost"` multiplies by 1 + log(1 + √V).

    Raises:
      ValueError: an unknown axis or direction; on use, gradients of fewer than 3 axes.

    Reference: TLGA, ICLR 2026 (https://arxiv.org/abs/2602.01369), temporal momentum.
    """
    if axis not in AXES:
        raise ValueError(f"attack.momentum_axis: {axis!r} is not one of {', '.join(AXES)}")
    if direction not in DIRECTIONS:
        raise ValueError(
            f"attack.momentum_direction: {direction!r} is not one of {', '.join(DIRECTIONS)}"
        )

    def init(params):
        if params.ndim < 3:
            raise ValueError(
                f"temporal momentum: no frames in inputs of shape {params.shape}, not [B, T, …]"
            )
        zeros = jnp.zeros(params.shape[:2], params.dtype)
        return TemporalMomentumState(zeros, zeros)

    def update(gradient, state, params=None):
        del params
        frame_norm = jnp.sqrt(jnp.sum(jnp.square(gradient), axis=tuple(range(2, gradient.ndim))))
        if axis == "iterations":
            velocity = _scale(state.velocity, decay) + frame_norm
        else:
            velocity = _accumulate_along_frames(frame_norm, decay)
        factor = 1 + jnp.log1p(jnp.sqrt(velocity))
        factor = factor if direction == "boost" else 1 / factor
        along = factor.reshape(factor.shape + (1,) * (gradient.ndim - 2))
        step = _scale(steepest_direction(norm, gradient) * along, step_size)
        return step, TemporalMomentumState(velocity, _scale(factor, step_size))

    return optax.GradientTransformation(init, update)


def step_sizes_of(state: optax.OptState) -> Float[Array, "batch time"] | None:
    """Returns the length of each frame's last step, in pixel units.

    It is None where the chain has no `temporal_momentum`.
    """

    def is_temporal(node):
        return isinstance(node, TemporalMomentumState)

    nodes = jax.tree.leaves(state, is_leaf=is_temporal)
    return next((node.step_sizes for node in nodes if is_temporal(node)), None)


def steepest_direction(
    norm: Norm, gradient: Float[Array, "batch ..."]
) -> Float[Array, "batch ..."]:
    """The direction of unit length in `norm` along which a linear function grows fastest."""
    if norm == "linf":
        return jnp.sign(gradient)
    # A confident model's gradients are so small that their squares underflow.
    largest = jnp.max(jnp.abs(gradient), axis=tuple(range(1, gradient.ndim)), keepdims=True)
    gradient = gradient / jnp.maximum(largest, _tiny(gradient))
    return gradient / jnp.maximum(example_norm(gradient), _tiny(gradient))


def _accumulate_along_frames(frame_norm: Array, decay: Array | float) -> Array:
    """V_t = decay · V_{t−1} + n_t over axis 1, as one product with a triangle of powers."""
    frames = frame_norm.shape[1]
    age = jnp.arange(frames)[:, None] - jnp.arange(frames)[None, :]
    decay = jnp.asarray(decay, frame_norm.dtype)[..., None, None]
    powers = decay ** jnp.maximum(age, 0).astype(frame_norm.dtype)
    powers = jnp.broadcast_to(jnp.where(age >= 0, powers, 0), (frame_norm.shape[0], *age.shape))
    return jnp.einsum("bs,bts->bt", frame_norm, powers)


def _tiny(x: Array) -> float:
    """The least normal number: divides 0 without a NaN and changes no other quotient."""
    return float(jnp.finfo(x.dtype).tiny)


def _scale(direction: Array, step_size: Array | float) -> Array:
    step_size = jnp.asarray(step_size, direction.dtype)
    return direction * step_size.reshape(step_size.shape + (1,) * (direction.ndim - step_size.ndim))
