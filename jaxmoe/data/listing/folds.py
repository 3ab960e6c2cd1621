"""Deals the groups of a dataset's examples into folds, each the test split of one run.

An example's fold depends on the list of files alone: neither on a seed, nor on which of the files
can be read.
"""

import re
from collections.abc import Iterable, Mapping

from jaxmoe.data.loading.source import ClipRecord


def deal_folds(groups: Mapping[str, str], folds: int) -> dict[str, int]:
    """Returns the fold of each path, from 0: whole groups, dealt in turn in natural order.

    Args:
      groups: by a path the group that a fold keeps together; `seq2` comes before `seq10`.
      folds: how many, at least 2.

    Raises:
      ValueError: there are fewer groups than folds.
    """
    names = sorted(set(groups.values()), key=_natural)
    if len(names) < folds:
        raise ValueError(
            f"data.folds: {folds} is more than the {len(names)} groups of files; expected at most "
            f"{len(names)}"
        )
    fold = {name: place % folds for place, name in enumerate(names)}
    return {path: fold[group] for path, group in groups.items()}


def split_by_fold(
    records: Iterable[ClipRecord], folds: Mapping[str, int], fold: int
) -> dict[str, tuple[ClipRecord, ...]]:
    """Returns the splits `test`, the records of one fold, and `train`, all others, by index."""
    ordered = sorted(records, key=lambda record: record.index)
    return {
        "train": tuple(record for record in ordered if folds[record.path] != fold),
        "test": tuple(record for record in ordered if folds[record.path] == fold),
    }


def _natural(name: str) -> tuple[list[str | int], str]:
    """A key by which the numbers in names are in the order of numbers."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
