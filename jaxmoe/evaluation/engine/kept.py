"""The small facts that an evaluation keeps of every example under every attack.

Axes: B = batch, N = valid clips, T = frames (1 for images), M = experts, K = classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoe.threat import ThreatModel

UNKNOWN = -1  # a prediction or an expert that is not known, or that every pixel has its own of
# Halves of the bytes of what a model gives: there is a line of these for each attack and ε.
_DTYPES = (np.int16, np.float16, np.int16, np.float16, np.float16)


class Kept(NamedTuple):
    """Facts of each example: the model's answer to it, and how far it was moved."""

    prediction: Int[Array, " batch"]  # UNKNOWN where labels are of pixels
    confidence: Float[Array, " batch"]  # softmax probability of the prediction, 0–1; NaN there
    expert: Int[Array, " batch"]  # first choice; UNKNOWN without a router of one choice an example
    # Softmax of router logits, the mean over routes of an example that has several; None without.
    weights: Float[Array, "batch experts"] | None
    # The norm of each frame's change, that of the threat model; None where nothing has moved yet.
    size: Float[Array, "batch frames"] | None = None


def kept_of(
    logits: Float[Array, "batch ... classes"], router: Float[Array, "batch ... experts"] | None
) -> Kept:
    """Returns what outputs of a model say of each example, without sizes.

    Args:
      logits: of the model; of a dense task those of all positions.
      router: logits of the router; None for a model without one.
    """
    unknown = jnp.full(logits.shape[0], UNKNOWN, jnp.int32)
    prediction, confidence = unknown, jnp.full(logits.shape[0], jnp.nan, jnp.float32)
    if logits.ndim == 2:
        prediction = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        confidence = jnp.max(jax.nn.softmax(logits.astype(jnp.float32)), axis=-1)
    if router is None:
        return Kept(prediction, confidence, unknown, None)
    weights = jax.nn.softmax(router.astype(jnp.float32))
    weights = jnp.mean(weights, axis=tuple(range(1, weights.ndim - 1)))
    expert = jnp.argmax(router, axis=-1).astype(jnp.int32) if router.ndim == 2 else unknown
    return Kept(prediction, confidence, expert, weights)


def frame_sizes(
    threat: ThreatModel, x_adv: Float[Array, "batch ..."], x: Float[Array, "batch ..."]
) -> Float[Array, "batch frames"]:
    """Returns `‖x_adv − x‖` of each frame, in the norm of the threat model.

    Inputs `[B, T, H, W, C]` have T frames, all others are one.
    """
    frames = frames_of(x.shape)
    flat = (pixels.reshape(x.shape[0] * frames, -1) for pixels in (x_adv, x))
    return threat.size(*flat).reshape(x.shape[0], frames).astype(jnp.float32)


def frames_of(shape: Sequence[int]) -> int:
    """Returns the number of frames of inputs of this shape, that of the batch included."""
    return shape[1] if len(shape) == 5 else 1


def join_kept(parts: Sequence[Kept], valid: Sequence[np.ndarray]) -> Kept:
    """Returns one line of facts, of the valid clips of all batches, in few bytes.

    Args:
      parts: of each batch, padding included.
      valid: of each batch, bool [B].
    """
    return compact(
        jax.tree.map(
            lambda *leaves: np.concatenate(
                [np.asarray(leaf)[mask] for leaf, mask in zip(leaves, valid, strict=True)]
            ),
            *parts,
        )
    )


def compact(kept: Kept) -> Kept:
    """Returns the same facts as int16 and float16."""
    return Kept(
        *(
            None if values is None else np.asarray(values).astype(dtype)
            for values, dtype in zip(kept, _DTYPES, strict=True)
        )
    )
