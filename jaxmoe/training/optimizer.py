"""AdamW without its learning rate, which the step multiplies in, and the rate's schedule."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

Schedule = Callable[[Array], Array]


def adamw(weight_decay: float, gradient_clip: float) -> optax.GradientTransformation:
    """Clipping by global norm, Adam, decoupled weight decay; to be scaled by −learning rate.

    Args:
      weight_decay: times the params, added after Adam.
      gradient_clip: largest global norm of the gradient; 0 does not clip.
    """
    clip = _clip(gradient_clip) if gradient_clip else optax.identity()
    return optax.chain(clip, optax.scale_by_adam(), optax.add_decayed_weights(weight_decay))


def _clip(largest: float) -> optax.GradientTransformationExtraArgs:
    """Clips by global norm, as `optax.clip_by_global_norm`; of a gradient in shards it is given."""

    def update(updates, state, params=None, *, norm: Array | None = None, **others):
        del params, others
        norm = optax.tree.norm(updates) if norm is None else norm
        clipped = jax.tree.map(
            lambda g: jnp.where(norm < largest, g, (g / norm.astype(g.dtype)) * largest), updates
        )
        return clipped, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def learning_rate_schedule(
    kind: Literal["one_cycle", "constant"], peak: float, steps: int, warmup: float
) -> Schedule:
    """`step -> learning rate`: constant, or linear up for `warmup · steps`, then a cosine to 0."""
    if kind == "constant":
        return optax.constant_schedule(peak)
    rise = int(warmup * steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(peak / 25, peak, max(rise, 1)),
            optax.cosine_decay_schedule(peak, max(steps - rise, 1)),
        ],
        [rise],
    )


def epsilon_schedule(epsilon: float, steps: int, warmup: float) -> Schedule:
    """`step -> ε`: linear from ε over the rise for `warmup · steps`, then ε.

    With ε = 1 it is the share of λ, which warms up beside ε (`make_train_step`).
    """
    rise = int(warmup * steps)
    if rise == 0:
        return optax.constant_schedule(epsilon)
    return optax.linear_schedule(epsilon / rise, epsilon, rise)
