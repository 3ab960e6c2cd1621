"""The clips that still stand, read as seldom as memory allows.

Batches have one of a few sizes, each a quarter of the one before, so that little is compiled for
what happens to be left. On a CPU, where an empty place costs as much as a clip, the first of an
attack that begins with few is about as many as there are: a power of two, or half as much again, so
that another run finds its program compiled.
Axes: N = valid clips, B = batch.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from jaxmoe.evaluation.engine.guards import DIFFERENT_PASS, check_same_pass

Batch = dict[str, np.ndarray]
Read = Callable[[], Batch]

SMALLER = 4  # a smaller batch holds so many times fewer clips
# A program takes seconds to compile, and a smaller batch saves hundredths at each look. So a rest
# has a smaller batch only where an attack looks at it this often, in all its attempts.
LOOKS_WORTH_A_PROGRAM = 500
# On a CPU so many clips at once cost no less a clip than more would, and an attack ends for a batch
# where all of it is broken: the fewer wait for the last one, the better.
ENOUGH_ON_CPU = 32
# Bytes of standing clips that stay in memory, as they come: clips of uint8 take a byte a value.
HELD_BELOW = 1 << 29


class StandingClips:
    """Full batches of what stands, attempt after attempt.

    Where what stands fits the memory it is read once. Else only batches with a clip that stands
    are, if a pass can be read by position, or all of a pass.
    """

    def __init__(
        self,
        factory: Callable[[], Iterable[Batch]],
        indices: Sequence[np.ndarray] | None = None,
        valid: Sequence[np.ndarray] | None = None,
        held_below: int | None = None,
        compiled: Mapping[str, Iterable[int]] | None = None,
    ):
        """Begins with nothing read.

        Args:
          factory: makes one pass, always the same, as for `evaluate_suite`. A pass that has a
            method `at(positions)` is read by that, where `valid` is given.
          indices: of the clips of each batch, padding included, if every pass is to be held
            against them.
          valid: of each batch, bool [B], if it is known.
          held_below: bytes that may be held; None is `HELD_BELOW`.
          compiled: sizes of batches for which attacks are compiled already.
        """
        self._factory = factory
        self._indices = indices
        self._starts = None
        if valid is not None:
            self._starts = np.cumsum([0, *(int(np.sum(mask)) for mask in valid)])
        self._held_below = HELD_BELOW if held_below is None else held_below
        self._size = None if valid is None else _bulk(len(valid[0]))
        self._held: tuple[np.ndarray, Batch] | None = None
        # Sizes that each attack has had. Those that others compile meanwhile do not count: a suite
        # that goes on by its journal compiles less, and has to have the same batches.
        self._begun = {attack: set(sizes) for attack, sizes in (compiled or {}).items()}

    def begin(self, attack: str, standing: int) -> int:
        """Returns the largest batch of an attack, at one ε, that begins with so many clips.

        A size that the attack had before serves again where at least half of it is full.
        """
        if self._size is None:
            self._size = _bulk(len(self.first()["valid"]))
        if jax.default_backend() != "cpu" or not 0 < standing < self._size:
            return self._size
        begun = self._begun.setdefault(attack, set())
        fits = [size for size in begun if standing <= size <= 2 * standing]
        begun.add(size := min(fits, default=min(_round_up(standing), self._size)))
        return size

    def first(self) -> Batch:
        """The first batch of a pass."""
        return next(iter(self._factory()))

    def gather(self, places: np.ndarray, size: int) -> Batch:
        """Returns the clips at these places of a pass, in order, as a batch of this size."""
        return _filled(self._source(places)(places), size)

    def batches(
        self, correct: np.ndarray, most: int | None = None, looks: float = np.inf
    ) -> Iterator[tuple[np.ndarray, int, Read]]:
        """The clips that stand, in full batches and a few smaller ones, all else left out.

        Args:
          correct: of a pass's valid clips, [N]; a clip stands above 0.
          most: clips of the largest batch, by `begin`; None is that of an attack on all.
          looks: how often the attack looks at a batch, in all attempts: few are not worth a
            smaller size for a rest.

        Yields:
          The places in `correct` of a batch's valid clips, its size, and a function that reads it.
          The size is `most` (of all: that of the pass; on a CPU a quarter of it, or 32 if that is
          more), or a quarter of that for a rest, or of that again where a few clips are all that
          stand. What is missing is filled up with its first clip, which is not valid. Batches are
          read in order, each at most once.
        """
        standing = np.flatnonzero(correct > 0)
        if self._size is None:
            self._size = _bulk(len(self.first()["valid"]))
        most = self._size if most is None else most
        take: list[Callable[[np.ndarray], Batch]] = []
        for places, size in _plan(standing, most, looks):

            def read(places=places, size=size):
                if not take:  # what a journal has need not be read
                    take.append(self._source(standing))
                return _filled(take[0](places), size)

            yield places, size, read

    def _source(self, standing: np.ndarray) -> Callable[[np.ndarray], Batch]:
        """A function from places among `standing`, in order, to their clips."""
        if self._held is None or not np.isin(standing, self._held[0]).all():
            self._held, parts = None, self._read(standing)
            places, part = next(parts)
            bytes_of_one = sum(
                values.dtype.itemsize * int(np.prod(values.shape[1:])) for values in part.values()
            )
            parts = itertools.chain([(places, part)], parts)
            if bytes_of_one * len(standing) > self._held_below:
                return _Stream(parts).take
            found = list(parts)
            self._held = (
                np.concatenate([places for places, _ in found]),
                {name: np.concatenate([part[name] for _, part in found]) for name in part},
            )
        return self._pick

    def _pick(self, places: np.ndarray) -> Batch:
        where = np.searchsorted(self._held[0], places)
        return {name: values[where] for name, values in self._held[1].items()}

    def _read(self, standing: np.ndarray) -> Iterator[tuple[np.ndarray, Batch]]:
        """Yields the standing clips of each batch that is read: places and clips."""
        done, position, found = 0, -1, 0
        for position, batch in self._pass(standing):
            if self._indices is not None:
                check_same_pass(batch, self._indices, position)
            here = np.flatnonzero(batch["valid"])
            number = (done if self._starts is None else self._starts[position]) + np.arange(
                len(here)
            )
            done += len(here)
            chosen = np.isin(number, standing, assume_unique=True)
            found += int(np.sum(chosen))
            yield (
                number[chosen],
                {name: np.asarray(batch[name])[here[chosen]] for name in batch},
            )
        if found < len(standing):
            raise ValueError(DIFFERENT_PASS.format(position + 1))

    def _pass(self, standing: np.ndarray) -> Iterable[tuple[int, Batch]]:
        """The batches of a pass with their positions; by position those with a clip that stands."""
        batches = self._factory()
        if self._starts is None:
            return enumerate(batches)
        positions = np.unique(np.searchsorted(self._starts, standing, side="right") - 1).tolist()
        if hasattr(batches, "at"):
            return zip(positions, batches.at(positions), strict=True)
        wanted = set(positions)
        until = itertools.islice(enumerate(batches), positions[-1] + 1)
        return ((position, batch) for position, batch in until if position in wanted)


class _Stream:
    """Takes places in order from parts of a pass."""

    def __init__(self, parts: Iterator[tuple[np.ndarray, Batch]]):
        self._parts = parts
        self._places = np.zeros(0, int)
        self._waiting: Batch | None = None

    def take(self, places: np.ndarray) -> Batch:
        """The clips at these places, which come after all that were taken before."""
        while not len(self._places) or self._places[-1] < places[-1]:
            more, part = next(self._parts)
            keep = self._places >= places[0]
            waiting = {} if self._waiting is None else _rows(self._waiting, keep)
            self._places = np.concatenate([self._places[keep], more])
            self._waiting = {
                name: np.concatenate([waiting[name], part[name]]) if waiting else part[name]
                for name in part
            }
        return _rows(self._waiting, np.isin(self._places, places, assume_unique=True))


def _bulk(size: int) -> int:
    """How many clips a batch holds while many stand, of `size` in a pass."""
    if jax.default_backend() != "cpu":
        return size
    return max(size // SMALLER, min(size, ENOUGH_ON_CPU))


def _round_up(count: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, … that holds so many."""
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if count <= power * 3 // 4 else power


def _plan(standing: np.ndarray, size: int, looks: float) -> Iterator[tuple[np.ndarray, int]]:
    """Places of what stands batch by batch, and the batch's size."""
    full = len(standing) // size * size
    for start in range(0, full, size):
        yield standing[start : start + size], size
    rest, smaller = standing[full:], max(size // SMALLER, 1)
    # What is compiled already serves for a rest that fills more than a quarter. Of a single batch
    # that is half full, three smaller ones save less than a program more costs.
    if len(rest) > (smaller if full else size // 2) or (full and looks < LOOKS_WORTH_A_PROGRAM):
        smaller = size
    # A few clips alone would be a few of many that are looked at, thousands of times.
    while not full and smaller > 1 and len(rest) <= smaller // SMALLER:
        smaller //= SMALLER
    for start in range(0, len(rest), smaller):
        yield rest[start : start + smaller], smaller


def _rows(batch: Batch, which: np.ndarray) -> Batch:
    return {name: values[which] for name, values in batch.items()}


def _filled(batch: Batch, size: int) -> Batch:
    missing = size - len(batch["valid"])
    filled = {
        name: np.concatenate([values, np.repeat(values[:1], missing, axis=0)])
        for name, values in batch.items()
    }
    filled["valid"] = np.arange(size) < size - missing
    return filled
