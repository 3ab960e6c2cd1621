"""What a step takes and changes: a batch, and the state of a training.

Axes: B = batch of this device.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxmoe.training.phase import Params


class Batch(NamedTuple):
    """Clips as the loader gives them, grey levels, or pixels in [0, 1]."""

    clip: UInt8[Array, "batch ..."] | Float[Array, "batch ..."]
    label: Int[Array, " batch"]
    index: Int[Array, " batch"]  # the example's own number: folds its random start
    valid: Bool[Array, " batch"] | None = None  # False for one that only fills up; None is all True


def fill_up(batch: Mapping[str, Any], devices: int) -> Batch:
    """Returns the batch; with its last example repeated, and not counted, until it splits."""
    found = Batch(batch["clip"], batch["label"], batch["index"])
    count = len(found.label)
    missing = -count % devices
    if not missing or jax.process_count() > 1:  # processes do not know of each other's batches
        return found
    place = np.minimum(np.arange(count + missing), count - 1)
    filled = jax.tree.map(lambda leaf: np.asarray(leaf)[place], found)
    return filled._replace(valid=np.arange(count + missing) < count)


class TrainState(NamedTuple):
    """Everything that a step changes."""

    step: Int[Array, ""]  # of this stage
    params: Params
    optimizer: dict[str, optax.OptState]  # one for each part of the params
    average: Params | None = None  # moving average of the params, where one is kept
    # The weights by which a batch's ε is drawn, where it is: scalars, so that each device has all.
    radius_weights: tuple[Float[Array, ""], ...] | None = None


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    *,
    averaged: bool = False,
    radii: int = 0,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      params: where it starts.
      optimizer: one state for each part.
      averaged: whether a moving average of the params is kept.
      radii: from so many ε a batch's is drawn, at first from each as often; 0 draws none.
    """
    states = {part: optimizer.init(params[part]) for part in sorted(params)}
    average = jax.tree.map(jnp.asarray, params) if averaged else None
    weights = (jnp.float32(1 / radii),) * radii if radii else None
    return TrainState(jnp.zeros((), jnp.int32), params, states, average, weights)
