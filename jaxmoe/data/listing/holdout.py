"""Holds out part of a split, class by class, the same part for the same seed."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxmoe.data.loading.source import ClipRecord


def hold_out(
    records: Sequence[ClipRecord],
    fraction: float,
    seed: int,
    source: Callable[[str], str] | None = None,
) -> tuple[tuple[ClipRecord, ...], tuple[ClipRecord, ...]]:
    """Splits records into (kept, held out), stratified by label.

    Of a class with n clips, `round(fraction * n)` are held out, at least one where the class has
    two or more, and never all. Which ones depends on the seed and the class alone. Clips of one
    source go together, so that there may be a few more; a class of a single source is parted.

    Args:
      records: the clips of a split.
      fraction: share to hold out, in (0, 1).
      seed: at least 0.
      source: from a clip's path to the film that it was cut from; None is each its own.

    Returns:
      Kept and held-out records, each in the order of `records`.
    """
    chosen: set[int] = set()
    for label in sorted({record.label for record in records}):
        members = sorted((r for r in records if r.label == label), key=lambda r: r.index)
        sources = [source(member.path) if source else member.path for member in members]
        if len(set(sources)) == 1:
            sources = [member.path for member in members]
        groups: dict[str, list[int]] = {}
        for name, member in zip(sources, members, strict=True):
            groups.setdefault(name, []).append(member.index)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held: list[int] = []
        own = [label] if label >= 0 else []  # below it every pixel has a label of its own
        order = np.random.default_rng([seed, *own]).permutation(len(groups))
        for group in order[: len(groups) - 1]:
            if len(held) >= count:
                break
            held += list(groups.values())[group]
        chosen.update(held)
    kept = tuple(record for record in records if record.index not in chosen)
    held_out = tuple(record for record in records if record.index in chosen)
    return kept, held_out
