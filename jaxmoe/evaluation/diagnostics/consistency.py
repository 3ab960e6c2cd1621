"""Does a clip have one answer? Not where the model's output depends on the rest of the batch.

Batch statistics, experts with a capacity, noise that belongs to a place in the batch, a state that
moves: then figures depend on the batch size and the order, and an attack on one clip changes the
others. Buffer Overflow in MoE (https://arxiv.org/abs/2402.05526) is an attack by that way alone.

One look more at a batch tells: half of it at other places, behind copies of a single clip. It has
the batch's own shape, so that nothing is compiled. Axes: B = batch, M = experts, K = classes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks.attack import Model, scored_apply
from jaxmoe.attacks.randomized import Randomized
from jaxmoe.evaluation.diagnostics.full_precision import computes_in_half
from jaxmoe.evaluation.engine.rows import Check
from jaxmoe.evaluation.engine.scoring import Outputs, to_pixels

NAME = "same answer in any batch"
# What sums in another order change, of the outputs' range in float32 and of the largest in half
# precision. Whatever all outputs share says nothing, but is rounded too: hence the least range.
_ROUNDING, _HALF_ROUNDING = 1e-3, 0.02
_LEAST_RANGE = 0.01  # of the largest output

Look = Callable[[dict[str, np.ndarray]], Outputs]
"""Outputs of a batch by `summary.to_host`; it has `clip`, `label`, `index` and `valid`."""


def consistency_check(
    model: Model, params: Any, look: Look, batch: dict[str, np.ndarray], outputs: Outputs
) -> Check:
    """Whether clips have the same outputs at other places and beside other clips, look after look.

    Args:
      model: what is looked at.
      params: of it.
      look: as the batch was looked at.
      batch: with a valid clip.
      outputs: of it, of `summary.to_host`.
    """
    if isinstance(model, Randomized):
        sentence = "The model is declared random, example by example."
        return Check(NAME, None, "not run", sentence, "model")
    taken, kept, places = _rearranged(batch)
    before = _of_clips(outputs, kept)
    after = _of_clips(look(taken), places)
    difference = _largest_difference(before, after)
    if difference <= _ROUNDING or (
        _largest_difference(before, after, of=_largest) <= _HALF_ROUNDING
        and _rounds_more(model, params, batch["clip"])
    ):
        sentence = (
            f"{len(kept)} examples have the same outputs at other places and beside other "
            f"examples, within {difference:.1e} of the outputs' range."
        )
        return Check(NAME, difference, "pass", sentence, "model")
    again = _largest_difference(before, _of_clips(look(batch), kept))
    if again > _ROUNDING:
        sentence = (
            f"Two looks at the same batch differ, by {again:.1%} of the outputs' range: the model "
            "is random or keeps a state, so its figures are one draw (attacks.Randomized takes a "
            "model with noise)."
        )
    else:
        sentence = (
            "An example's outputs depend on its place in the batch or on the other examples: "
            f"{len(kept)} examples in another order and company differ by {difference:.1%} of "
            "the outputs' range (batch statistics of training mode, noise of one fixed key, "
            "experts with a capacity); figures are of batches of "
            f"{len(batch['valid'])} in this order alone."
        )
    return Check(NAME, max(difference, again), "flag", sentence, "model")


def _rearranged(
    batch: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The batch anew, which of its clips are still in it, and at which places.

    They stand at its end, behind copies of the clip that is least like the mean: a capacity is full
    before it comes to them, and statistics are those of the copies. A batch of one becomes two.
    """
    size, valid = len(batch["valid"]), np.flatnonzero(batch["valid"])
    count = max(1, min(len(valid), size // 2))
    kept = valid[np.linspace(0, len(valid) - 1, count).astype(int)]
    places = np.arange(max(size, 2) - count, max(size, 2))
    for shift in range(count):
        moved = np.roll(kept[::-1], shift)
        if not np.any(moved == places):
            break
    kept = moved
    if count == 1 and kept[0] == places[0]:
        places = np.array([0])
    clips = np.asarray(batch["clip"])
    brightness = np.array([np.mean(clips[place], dtype=np.float64) for place in valid])
    far = valid[np.argmax(np.abs(brightness - brightness.mean()))]
    origin = np.full(max(size, 2), far)
    origin[places] = kept
    taken = {name: np.asarray(values)[origin] for name, values in batch.items()}
    if len(valid) == 1:  # which has no other beside it: a black one
        others = np.setdiff1d(np.arange(len(origin)), places)
        taken["clip"][others] = 0
    return taken, kept, places


def _of_clips(outputs: Outputs, places: np.ndarray) -> dict[str, np.ndarray]:
    """Logits, and the router's where there is one, of some clips."""
    found = {"logits": outputs.logits, "router": outputs.router}
    return {name: values[places] for name, values in found.items() if values is not None}


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def _range(values: np.ndarray) -> float:
    return max(float(np.ptp(values)), _LEAST_RANGE * _largest(values))


def _largest_difference(
    one: dict[str, np.ndarray],
    other: dict[str, np.ndarray],
    of: Callable[[np.ndarray], float] = _range,
) -> float:
    """The largest of any part's outputs, as a share of what `of` says; inf where one is not finite.

    A clip between two experts may be sent to either by rounding: there routers are compared alone.
    """
    differences = []
    for name, values in one.items():
        apart = np.abs(values - other[name]).reshape(len(values), -1).max(axis=1)
        if name == "logits" and "router" in one:
            routes = [np.argsort(-outputs["router"], axis=-1) for outputs in (one, other)]
            same = np.all(routes[0] == routes[1], axis=tuple(range(1, routes[0].ndim)))
            apart = np.where(same, apart, 0.0)
        whole, worst = of(values), float(apart.max())
        differences.append(worst / whole if worst and whole else worst)
    worst = max(differences)
    return worst if np.isfinite(worst) else np.inf


def _rounds_more(model: Model, params: Any, clip: np.ndarray) -> bool:
    """Returns whether the model computes in less than float32, or on what multiplies in less."""
    if jax.default_backend() != "cpu":
        return True
    clip = jax.ShapeDtypeStruct(np.shape(clip), jnp.result_type(clip))
    apply = scored_apply(model)
    return computes_in_half(lambda params, clip: apply(params, to_pixels(clip)), params, clip)
