"""Checks of everything that an attack returns, and their errors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxmoe.attacks import ATTACKS, AttackResult
from jaxmoe.attacks.edge import check_axes, check_labels, check_pixels
from jaxmoe.evaluation.engine.scoring import Metric, Outputs, Scores, Verdict
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.options import check_number

# Beyond it, ‖δ‖ > ε is no rounding error; relative where ε > 1, as float32 is.
_TOLERANCE = 1e-6

DIFFERENT_PASS = (
    "batches: pass differs from the clean one at batch {}; batches_factory() must give the same "
    "batches every time"
)


class NonFiniteError(ArithmeticError):
    """A model or an attack made numbers that are not finite."""


class NonFiniteGradient(NonFiniteError):  # noqa: N818
    """An attack met a loss or a gradient that was not finite: its clips did not survive it."""


class ThreatViolation(AssertionError):  # noqa: N818
    """An attack returned clips outside its ball or outside the box."""


def check_batch(batch: dict[str, np.ndarray]) -> None:
    """A dict of all that a batch has, with pixels; raises a ValueError otherwise."""
    names = ("clip", "label", "index", "valid")
    missing = [name for name in names if not isinstance(batch, dict) or name not in batch]
    if missing:
        raise ValueError(
            f"batches: a {type(batch).__name__} without {', '.join(missing)}; expected dicts with "
            f"{', '.join(names)}"
        )
    check_pixels(np.asarray(batch["clip"])[batch["valid"]])


def check_fits(attacks: Iterable[str], batch: dict[str, np.ndarray]) -> None:
    """Refuses inputs whose axes or labels are not for one of `attacks`.

    Raises:
      ValueError: channels-first inputs and an attack that reads the axes, or a label for every
        position and an attack that breaks one.
    """
    for name in attacks:
        if name not in ATTACKS:
            continue
        named = ATTACKS[name]
        shape = np.shape(batch["clip"])
        check_axes(name, shape, picture=named.picture, temporal=named.temporal)
        if named.one_label and np.ndim(batch["label"]) > 1:
            raise ValueError(
                f"attack: {name} breaks one label of an example, and here every position has one; "
                "expected an attack such as pgd, pgd-standing or apgd-ce"
            )


def as_epsilons(epsilons: Sequence[float]) -> tuple[float, ...]:
    """The radii as floats, none twice.

    Raises:
      ValueError: one number, text, or none.
    """
    if isinstance(epsilons, str | bytes) or not np.iterable(epsilons):
        kind = "text" if isinstance(epsilons, str | bytes) else "one number"
        raise ValueError(f"epsilons: {epsilons!r} is {kind}; expected a list of numbers")
    for epsilon in epsilons:
        check_number("epsilons", epsilon)
    if not len(epsilons):
        raise ValueError("epsilons: none given; expected at least one ε ≥ 0")
    return tuple(dict.fromkeys(float(epsilon) for epsilon in epsilons))


def check_arguments(attacks: Sequence[str], batches_factory: Callable) -> None:
    """Refuses one name in place of a list, and what makes no pass; raises a ValueError."""
    if isinstance(attacks, str):
        raise ValueError(f"attacks: {attacks!r} is one name; expected a list")
    if not callable(batches_factory):
        raise ValueError(
            f"batches_factory: {type(batches_factory).__name__}; expected a function that makes a "
            "pass, such as `lambda: batches`"
        )


def check_clean(outputs: Outputs, batch: dict, metric: Metric, name: str) -> None:
    """The model's outputs on clean clips are finite and, for `accuracy`, labels are its classes.

    Raises:
      ValueError, NonFiniteError: they are not.
    """
    check_finite_outputs(outputs.finite, batch, name, 0.0)
    valid = np.asarray(batch["valid"])
    if metric is accuracy and valid.any():
        check_labels(np.asarray(batch["label"])[valid], outputs.logits.shape[-1])


class Attacked(NamedTuple):
    """The part of an `AttackResult` that the guards look at."""

    finite: np.ndarray  # [B]


def check_attack(
    result: AttackResult | Attacked, score: Scores | Verdict, batch: dict, name: str, epsilon: float
) -> None:
    """Everything finite, ‖δ‖ ≤ ε + 1e-6 · max(1, ε) and inside the box, on the valid clips.

    Args:
      result: what the attack says, in host memory.
      score: what the model says of it.
      batch: the batch attacked.
      name: of the attack, for the message.
      epsilon: radius of the ball in pixel units.

    Raises:
      NonFiniteGradient: a loss or gradient of the attack was not finite.
      NonFiniteError: the model's outputs at x' are not.
      ThreatViolation: a clip outside the ball or the box.
    """
    valid = np.asarray(batch["valid"])
    broken = ~result.finite & valid
    if np.any(broken):
        raise NonFiniteGradient(
            f"{name} at ε = {epsilon:.6g}: a loss or gradient that is not finite on the examples "
            f"with index {_indices(batch, broken)}; they did not survive, the model is broken there"
        )
    check_finite_outputs(score.finite, batch, name, epsilon)
    largest = epsilon + _TOLERANCE * max(1.0, epsilon)
    outside = valid & ~((score.size <= largest) & score.in_box)
    if np.any(outside):
        raise ThreatViolation(
            f"{name} at ε = {epsilon:.6g}: outside the ball or the box on the examples with index "
            f"{_indices(batch, outside)}; the largest change is {score.size[outside].max():.9g}"
        )


def check_finite_outputs(finite: np.ndarray, batch: dict, name: str, epsilon: float) -> None:
    """The model's outputs are finite on the valid clips; raises a NonFiniteError otherwise."""
    broken = ~finite & np.asarray(batch["valid"])
    if np.any(broken):
        raise NonFiniteError(
            f"{name} at ε = {epsilon:.6g}: outputs that are not finite on the examples with index "
            f"{_indices(batch, broken)}"
        )


def check_same_pass(batch: dict, expected: list[np.ndarray], position: int) -> None:
    """The batch holds the clips of the clean pass; raises a ValueError otherwise."""
    if position >= len(expected) or not np.array_equal(batch["index"], expected[position]):
        raise ValueError(DIFFERENT_PASS.format(position))


def same_pass(batches: Iterable[dict], expected: list[np.ndarray]) -> Iterator[dict]:
    """The batches of a pass, each checked against the clean one's."""
    position = -1
    for position, batch in enumerate(batches):
        check_same_pass(batch, expected, position)
        yield batch
    if position + 1 != len(expected):
        raise ValueError(DIFFERENT_PASS.format(position + 1))


def _indices(batch: dict, where: np.ndarray) -> list[int]:
    return np.asarray(batch["index"])[where].tolist()
