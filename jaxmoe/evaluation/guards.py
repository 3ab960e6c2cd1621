"""What must hold of everything that an attack returns, and the errors where it does not."""

from typing import NamedTuple

import numpy as np

from jaxmoe.attacks import AttackResult
from jaxmoe.evaluation.scoring import Scores, Verdict

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


class Attacked(NamedTuple):
    """What the guards look at of an `AttackResult`."""

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
            f"{name} at ε = {epsilon:.6g}: a loss or gradient that is not finite on the clips with "
            f"index {_indices(batch, broken)}; they did not survive, the model is broken there"
        )
    check_finite_outputs(score.finite, batch, name, epsilon)
    largest = epsilon + _TOLERANCE * max(1.0, epsilon)
    outside = valid & ~((score.size <= largest) & score.in_box)
    if np.any(outside):
        raise ThreatViolation(
            f"{name} at ε = {epsilon:.6g}: outside the ball or the box on the clips with index "
            f"{_indices(batch, outside)}; the largest change is {score.size[outside].max():.9g}"
        )


def check_finite_outputs(finite: np.ndarray, batch: dict, name: str, epsilon: float) -> None:
    """The model's outputs are finite on the valid clips; raises a NonFiniteError otherwise."""
    broken = ~finite & np.asarray(batch["valid"])
    if np.any(broken):
        raise NonFiniteError(
            f"{name} at ε = {epsilon:.6g}: outputs that are not finite on the clips with index "
            f"{_indices(batch, broken)}"
        )


def check_same_pass(batch: dict, expected: list[np.ndarray], position: int) -> None:
    """The batch holds the clips of the clean pass; raises a ValueError otherwise."""
    if position >= len(expected) or not np.array_equal(batch["index"], expected[position]):
        raise ValueError(DIFFERENT_PASS.format(position))


def _indices(batch: dict, where: np.ndarray) -> list[int]:
    return np.asarray(batch["index"])[where].tolist()
