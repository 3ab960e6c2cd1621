"""Universal perturbations by their names: made on a source's training clips, for test clips."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import AttackSettings, fit_universal
from jaxmoe.attacks.attack import Model, as_apply
from jaxmoe.attacks.universal import Delta
from jaxmoe.evaluation.engine.guards import NonFiniteGradient
from jaxmoe.evaluation.engine.scoring import to_pixels
from jaxmoe.threat import ThreatModel

PER_CLASS = "universal-class"
UNIVERSAL = ("universal", PER_CLASS)
"""One perturbation for all clips; one for each class, which the adversary has to know."""


def fit_named(
    name: str,
    model: Model,
    params: Any,
    training_batches: Callable[[], Iterable[dict[str, np.ndarray]]],
    *,
    threat: ThreatModel,
    settings: AttackSettings,
    seed: int,
    epochs: int,
) -> Delta:
    """The perturbation called `name`, one of `UNIVERSAL`; depends on the seed and the name.

    Args:
      name: which one.
      model: what is attacked.
      params: its params.
      training_batches: makes one pass of batches as a suite has them, of training clips.
      threat: the ball and frames.
      settings: `alpha` and `gradient` are used.
      seed: of its start.
      epochs: passes.

    Raises:
      ValueError: as `fit_universal`.
      NonFiniteGradient: a loss or a gradient was not finite.
    """

    def batches() -> Iterator[dict[str, Any]]:
        for batch in training_batches():
            yield batch | {"clip": to_pixels(jnp.asarray(batch["clip"]))}

    key = jax.random.fold_in(jax.random.key(seed), jnp.uint32(zlib.crc32(name.encode())))
    num_classes = _count_classes(model, params, batches) if name == PER_CLASS else None
    try:
        return fit_universal(
            key,
            model,
            params,
            batches,
            threat=threat,
            settings=settings,
            epochs=epochs,
            num_classes=num_classes,
        )
    except FloatingPointError as error:
        raise NonFiniteGradient(f"{name} at ε = {threat.epsilon:.6g}: {error}") from error


def _count_classes(model: Model, params: Any, batches: Callable) -> int:
    """K: the last axis of the logits."""
    hard = as_apply(model, AttackSettings())
    for batch in batches():
        return jax.eval_shape(hard, params, batch["clip"]).shape[-1]
    raise ValueError("training_batches: no batch to make a universal perturbation on")
