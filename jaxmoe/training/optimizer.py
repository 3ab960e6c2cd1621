"""AdamW without its learning rate, which the step multiplies in."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmoe.parallel import of_experts

_KEPT = ("bias", "scale", "positions", "class_token")  # weight decay leaves what is called so


def adamw(weight_decay: float, gradient_clip: float) -> optax.GradientTransformation:
    """Clipping by norm, Adam, decoupled weight decay; to be scaled by −learning rate.

    Its update takes `norms`, for each leaf the norm by which it is clipped (`Shards.norms`: its
    expert's, or that of all else), and `acts`, whether it decays (`decays`). Without them it
    clips by the norm of all, and decays what `decays` says of params whose experts are not stacked.

    Args:
      weight_decay: times the params, added after Adam.
      gradient_clip: largest norm of a gradient; 0 does not clip.
    """
    clip = clip_by_norms(gradient_clip) if gradient_clip else optax.identity()
    return optax.chain(clip, optax.scale_by_adam(), _decay(weight_decay))


def decays(params: Any) -> Any:
    """Returns for each leaf of the params whether weight decay acts on it.

    It acts on kernels and matrices. Norms, biases and positions are left alone: they set a scale or
    a place, and nothing else brings them back to it.

    Args:
      params: by part, so that stacked experts are known by their path.
    """

    def decays_one(path, leaf) -> bool:
        stacked = int(of_experts(path))
        return str(getattr(path[-1], "key", "")) not in _KEPT and leaf.ndim - stacked >= 2

    return jax.tree_util.tree_map_with_path(decays_one, params)


def clip_by_norms(largest: float) -> optax.GradientTransformationExtraArgs:
    """Scales every leaf whose norm is larger down to it."""

    def update(updates, state, params=None, *, norms: Any = None, **others):
        del params, others
        if norms is None:
            whole = optax.tree.norm(updates)
            norms = jax.tree.map(lambda leaf: whole, updates)

        def clip(g, norm):
            return jnp.where(norm < largest, g, (g / norm.astype(g.dtype)) * largest)

        return jax.tree.map(clip, updates, norms), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _decay(rate: float) -> optax.GradientTransformationExtraArgs:
    """Adds `rate` times the params that decay."""

    def update(updates, state, params, *, acts: Any = None, **others):
        del others
        acts = decays(params) if acts is None else acts
        decayed = jax.tree.map(lambda u, p, on: u + rate * p if on else u, updates, params, acts)
        return decayed, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
