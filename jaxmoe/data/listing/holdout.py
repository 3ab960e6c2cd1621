"""Holds out part of a split, class by class, the same part for the same seed."""

from collections import Counter
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
    source go together, and take those of other classes with them, so that there may be a few
    more; a class of a single source is parted.

    Args:
      records: the clips of a split.
      fraction: share to hold out, in (0, 1).
      seed: at least 0.
      source: from a clip's path to the film that it was cut from; None is each its own.

    Returns:
      Kept and held-out records, each in the order of `records`.
    """
    groups = _groups(records, source)
    of_label: dict[int, list[str]] = {}
    for name, members in groups.items():
        for label in {record.label for record in members}:
            of_label.setdefault(label, []).append(name)
    total = Counter(record.label for record in records)
    held: Counter[int] = Counter()
    chosen: set[str] = set()
    for label, names in sorted(of_label.items()):
        count = min(max(1, round(fraction * total[label])), total[label] - 1)
        own = [label] if label >= 0 else []  # below it every pixel has a label of its own
        for place in np.random.default_rng([seed, *own]).permutation(len(names)):
            if held[label] >= count:
                break
            also = Counter(record.label for record in groups[names[place]])
            emptied = any(held[other] + n >= total[other] for other, n in also.items())
            if names[place] not in chosen and not emptied:
                chosen.add(names[place])
                held.update(also)
    out = {record.index for name in chosen for record in groups[name]}
    kept = tuple(record for record in records if record.index not in out)
    held_out = tuple(record for record in records if record.index in out)
    return kept, held_out


def _groups(
    records: Sequence[ClipRecord], source: Callable[[str], str] | None
) -> dict[str, list[ClipRecord]]:
    """The records by source, in the order of their first; of a class with one source, by path."""
    names = {record.path: source(record.path) if source else record.path for record in records}
    sources: dict[int, set[str]] = {}
    for record in records:
        sources.setdefault(record.label, set()).add(names[record.path])
    groups: dict[str, list[ClipRecord]] = {}
    for record in sorted(records, key=lambda record: record.index):
        alone = len(sources[record.label]) == 1
        groups.setdefault(record.path if alone else names[record.path], []).append(record)
    return groups
