"""Holds out part of a split, class by class, the same part for the same seed."""

from collections.abc import Sequence

import numpy as np

from jaxmoe.data.source import ClipRecord


def hold_out(
    records: Sequence[ClipRecord], fraction: float, seed: int
) -> tuple[tuple[ClipRecord, ...], tuple[ClipRecord, ...]]:
    """Splits records into (kept, held out), stratified by label.

    Of a class with n clips, `round(fraction * n)` are held out, at least one where the class has
    two or more, and never all. Which ones depends on the seed and the class alone.

    Args:
      records: the clips of a split.
      fraction: share to hold out, in (0, 1).
      seed: at least 0.

    Returns:
      Kept and held-out records, each in the order of `records`.
    """
    chosen: set[int] = set()
    for label in sorted({record.label for record in records}):
        members = sorted(record.index for record in records if record.label == label)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        order = np.random.default_rng([seed, label]).permutation(len(members))
        chosen.update(members[i] for i in order[:count])
    kept = tuple(record for record in records if record.index not in chosen)
    held = tuple(record for record in records if record.index in chosen)
    return kept, held
