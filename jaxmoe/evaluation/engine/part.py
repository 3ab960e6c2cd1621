"""A part of a split that stands for the whole: drawn by class, the same part for the same seed.

A split may be sorted by class, by film or by how hard its examples are, so that the first so many
are no sample of it. Every command and check that looks at a part takes it from here.

Axes: N = examples, B = batch.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import Int

SEED = 0  # of every draw that names no other: commands look at the same part


def draw_by_class(
    labels: Int[np.ndarray, " N"], count: int, seed: int = SEED
) -> Int[np.ndarray, " count"]:
    """Returns the places of `count` examples, drawn by class, in the order of the whole.

    Every example is as likely as any other, and each class has its share, rounded up or down. All
    of them where there are no more.

    Args:
      labels: a class of each example.
      count: how many to draw, at least 1.
      seed: of the draw.
    """
    if count < 1:
        raise ValueError(f"examples: {count} is not at least 1")
    if count >= len(labels):
        return np.arange(len(labels))
    luck = np.random.default_rng(seed).random(len(labels))
    return luckiest(labels, luck, shares_of(totals_of(labels), count, seed))


def totals_of(labels: np.ndarray) -> dict[int, int]:
    """Returns how many examples there are of each class."""
    return dict(
        zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True)
    )


def shares_of(totals: dict[int, int], count: int, seed: int) -> dict[int, int]:
    """Returns how many of each class `count` examples have: marks at equal distances on a line.

    On it every class has a length as its number of examples.
    """
    ends = np.cumsum([totals[label] for label in sorted(totals)])
    start = np.random.default_rng([seed, 1]).random()
    marks = (start + np.arange(count)) * ends[-1] / count
    found = np.bincount(np.searchsorted(ends, marks, side="right"), minlength=len(ends))
    return dict(zip(sorted(totals), found.tolist(), strict=True))


def luckiest(labels: np.ndarray, luck: np.ndarray, shares: dict[int, int]) -> np.ndarray:
    """Returns the places of so many of each class, those of the least numbers."""
    chosen = []
    for label, share in shares.items():
        own = np.flatnonzero(labels == label)
        chosen.append(own[np.argsort(luck[own], kind="stable")[:share]])
    return np.sort(np.concatenate(chosen))


def spread_evenly(total: int, count: int) -> Int[np.ndarray, " count"]:
    """Returns `count` places from the first to the last: of images whose pixels have the labels."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


class Source(Protocol):
    """A source that a part can be taken of, such as `data.ClipSource`."""

    dense: bool
    labels: Int[np.ndarray, " N"]
    records: Sequence

    def take(self, records: Sequence) -> "Source":
        """The source of some of these records."""
        ...


AnySource = TypeVar("AnySource", bound=Source)


def take_part_of(source: AnySource, count: int, seed: int = SEED) -> AnySource:
    """Returns `count` examples of a split, drawn by class; evenly spread where pixels have labels.

    Images that label pixels have no class, and frames of one film follow one another.
    """
    if source.dense:
        places = spread_evenly(len(source.records), count)
    else:
        places = draw_by_class(source.labels, count, seed)
    return source.take([source.records[place] for place in places])


def describe_part(count: int, total: int, seed: int = SEED, *, dense: bool = False) -> str:
    """Returns which part was looked at, in words, for the results."""
    if count >= total:
        return f"all {total}"
    return f"{count} of {total}, " + ("evenly spread" if dense else f"drawn by class, seed {seed}")
