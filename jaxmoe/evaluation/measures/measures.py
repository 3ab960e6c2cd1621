"""Measures of predictions beside accuracy, by name: each becomes a column of the tables.

A measure of one's own is an entry of `MEASURES`. Axes: B = batch, K = classes, … = positions of a
dense task.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoe.spelling import did_you_mean

if TYPE_CHECKING:
    from jaxmoe.evaluation.engine.scoring import Outputs

Measured = Callable[["Outputs", "Outputs", Array], Float[Array, " batch"]]
"""`(outputs under attack, clean outputs, labels) -> [B]`, a number for each example."""


class Measure(NamedTuple):
    """A measure, whose mean over examples a table shows.

    Attributes:
      title: of its column, with its unit.
      help: what it is, in a line.
      of: what it computes; of clean examples both outputs are the same.
    """

    title: str
    help: str
    of: Measured


def _of_label(value: Array, y: Array) -> Float[Array, " batch"]:
    """The mean over an example's labelled positions."""
    counted = jnp.broadcast_to(y >= 0, value.shape).astype(value.dtype)
    axes = tuple(range(1, value.ndim))
    return jnp.sum(value * counted, axes) / jnp.maximum(jnp.sum(counted, axes), 1)


def confidence(outputs: "Outputs", clean: "Outputs", y: Array) -> Float[Array, " batch"]:
    """Returns the largest softmax probability, 0 to 1."""
    del clean
    return _of_label(jnp.max(jax.nn.softmax(outputs.logits), axis=-1), y)


def label_probability(outputs: "Outputs", clean: "Outputs", y: Array) -> Float[Array, " batch"]:
    """Returns the softmax probability of the label, 0 to 1."""
    del clean
    place = jnp.maximum(y, 0)[..., None]
    found = jnp.take_along_axis(jax.nn.softmax(outputs.logits), place, axis=-1)
    return _of_label(found[..., 0], y)


def prediction_changes(outputs: "Outputs", clean: "Outputs", y: Array) -> Float[Array, " batch"]:
    """Returns 1 where the prediction is another than the clean one, right or wrong."""
    changed = jnp.argmax(outputs.logits, axis=-1) != jnp.argmax(clean.logits, axis=-1)
    return _of_label(changed.astype(jnp.float32), y)


def trust(outputs: "Outputs", clean: "Outputs", y: Array) -> Float[Array, " batch"]:
    """Returns the router's largest weight, softmax of its logits, 1/M to 1; 1 without a router.

    Under `combine = "softmax"` with one expert an example it scales the logits.
    """
    del clean
    if outputs.router is None:
        return jnp.ones(y.shape[:1], jnp.float32)
    weights = jnp.max(jax.nn.softmax(outputs.router), axis=-1)
    return jnp.mean(weights, axis=tuple(range(1, weights.ndim)))


MEASURES: dict[str, Measure] = {
    "confidence": Measure("confidence", "mean largest softmax probability, 0 to 1", confidence),
    "label-probability": Measure(
        "probability of the label",
        "mean softmax probability of the label, 0 to 1",
        label_probability,
    ),
    "changed": Measure(
        "changed predictions", "share of predictions that an attack changed", prediction_changes
    ),
    "trust": Measure("trust", "mean weight of the most trusted expert, 1/M to 1", trust),
}


def find_measures(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names as `MEASURES` spells them, each once; `-` and `_` are alike.

    Raises:
      ValueError: there is no such measure.
    """
    return tuple(dict.fromkeys(map(_find, names)))


def _find(name: str) -> str:
    found = name if name in MEASURES else name.lower().replace("_", "-")
    if found not in MEASURES:
        raise ValueError(
            f"measures: {name!r} is not accepted{did_you_mean(found, MEASURES)} All are "
            f"{', '.join(MEASURES)}"
        )
    return found


def measure(
    names: Sequence[str], outputs: "Outputs", clean: "Outputs", y: Array
) -> dict[str, Float[Array, " batch"]] | None:
    """Returns each named measure of a batch, [B]; None without names.

    Raises:
      ValueError: a measure that does not give one number for each example.
    """
    if not names:
        return None
    found = {name: MEASURES[name].of(outputs, clean, y) for name in names}
    for name, values in found.items():
        if jnp.shape(values) != y.shape[:1]:
            raise ValueError(
                f"measures: {name} gives shape {jnp.shape(values)}; expected a number for each of "
                f"{y.shape[0]} examples"
            )
    return {name: values.astype(jnp.float32) for name, values in found.items()}
