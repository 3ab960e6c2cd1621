"""The result of a transfer matrix. Axes: N = valid clips."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxmoe.evaluation.engine.rows import Check
from jaxmoe.evaluation.engine.verdict import flags_in_short, sentences_of_flags
from jaxmoe.threat import format_epsilon

ALL_OTHERS = "all others"
_SHOWN = 8  # rows in a `repr`


class TransferRow(NamedTuple):
    """One attack at one ε, made on `source` and scored on `target`, over the `n` valid clips."""

    source: str  # or "all others": right under the clips of every source but the target itself
    target: str
    attack: str
    epsilon: float  # in pixel units
    norm: str
    robust_accuracy: float  # 0–1; right when clean, on the target, and right under the attack
    accuracy_under_attack: float  # 0–1; right under the attack
    clean_accuracy: float  # 0–1; of the target
    n: int  # clips
    seed: int
    # 0–1, where every pixel has a label; of all others, of each image the clip that left the least
    mean_iou: float | None = None  # under the attack
    clean_iou: float | None = None  # of the target
    test_set: str | None = None  # the digest of other clips than the runs' own test split


class TransferResult(NamedTuple):
    """All that a transfer matrix found; arrays are in the order of `index`."""

    rows: tuple[TransferRow, ...]
    correct: dict[tuple[str, str, str, float], np.ndarray]  # [N] by source, target, attack, ε
    clean: dict[str, np.ndarray]  # [N] by target
    index: np.ndarray  # shape=(N,), the clips' own numbers
    notes: tuple[str, ...] = ()  # what else a reader of the figures has to know
    model_checks: Mapping[str, tuple[Check, ...]] = MappingProxyType({})  # by target

    def __repr__(self) -> str:
        """The figures without the arrays, and what the checks of the targets flag."""
        rows = "; ".join(
            f"{row.attack} ε = {format_epsilon(row.epsilon, row.norm)} {row.source} → {row.target} "
            f"{row.robust_accuracy:.1%}"
            for row in self.rows[:_SHOWN]
        )
        more = f"; {len(self.rows) - _SHOWN} rows more" if len(self.rows) > _SHOWN else ""
        flags = "; ".join(
            f"{target} {flags_in_short(checks)}" for target, checks in self.model_checks.items()
        )
        return f"TransferResult({len(self.index)} examples; {rows}{more}; {flags})"

    def row(self, source: str, target: str, attack: str, epsilon: float) -> TransferRow:
        """The row of a source, a target, an attack and an ε.

        Raises:
          KeyError: there is none.
        """
        wanted = source, target, attack, epsilon
        for row in self.rows:
            if row[:4] == wanted:
                return row
        raise KeyError(f"no row of {wanted}")


def flags_of_targets(checks: Mapping[str, Sequence[Check]]) -> list[str]:
    """Returns what is wrong with the targets, each by its name."""
    return [
        f"{target}: {sentence}"
        for target, own in checks.items()
        for sentence in sentences_of_flags(own, "model")
    ]
