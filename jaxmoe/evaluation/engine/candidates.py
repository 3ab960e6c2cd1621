"""Examples that are drawn before the attacks, of which a few are shown whole after them.

Who is to be shown is known only when all attacks are through, and adversarial clips are large. So
the clips of a few drawn examples are held meanwhile, two of each at most. A batch that a journal
recalls is attacked once more if a clip of it is shown: of the same batch the same clip comes.
Axes: N = valid clips, B = batch, T = frames.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jaxmoe.evaluation.engine.part import draw_by_class, spread_evenly

SMALLEST, CONFIDENT = "smallest epsilon", "confident failure"
SURVIVOR, RANDOM = "survivor", "random"
# Two clips of each candidate are held, of a byte and of a half-precision float for a number.
HELD_BELOW, _BYTES = 1 << 26, 2 * 3
# Huge clips have one for each reason; there are never so many that looking after them takes time.
FEWEST, MOST = 4, 64
# Bytes of the whole examples of a result: all twelve clips of 16 frames of 112 × 112 pixels.
SHOWN_BELOW = 24 << 20


ClipsAt = Callable[[np.ndarray], np.ndarray]


class Pair(NamedTuple):
    """A whole example, clean and adversarial."""

    clean: UInt8[np.ndarray, "time height width channels"]
    adversarial: Float[np.ndarray, "time height width channels"]  # float16, 0–1
    step_sizes: Float[np.ndarray, "steps time"] | None = None  # with temporal momentum


class Chosen(NamedTuple):
    """An example to show."""

    place: int  # in 0..N−1
    line: int  # of the attack and ε that made the adversarial clip; 0 is the clean line
    why: str
    clip: "Pair | Again"

    def pair(self) -> Pair:
        """Returns the example, which may have to be made."""
        return self.clip if isinstance(self.clip, Pair) else self.clip[self.place]


class Again:
    """The clips of the candidates of a batch, made when one of them is asked for."""

    def __init__(self, make: Callable[[], Mapping[int, Pair]]):
        self._make, self._found = make, None

    def __getitem__(self, place: int) -> Pair:
        if self._found is None:
            self._found = self._make()
        return self._found[place]


class Line(NamedTuple):
    """An attack at one ε, and the candidates that it may break."""

    candidates: "Candidates"
    number: int  # 0 is the clean line
    epsilon: float

    def offer(
        self,
        places: np.ndarray,
        right: np.ndarray,
        confidence: np.ndarray,
        clips: Mapping[int, Pair] | Again,
    ) -> None:
        """Takes what the attack found of a batch, as `Candidates.offer`."""
        self.candidates.offer(self.number, self.epsilon, places, right, confidence, clips)


class _Held(NamedTuple):
    key: tuple  # the smaller, the better
    line: int
    clip: Pair | Again


@dataclasses.dataclass
class _Candidate:
    place: int
    luck: int
    clean: float  # what was right without an attack
    first: _Held | None = None  # what broke it at the smallest ε
    surest: _Held | None = None  # what it is most confident of, and wrong
    nearest: _Held | None = None  # what did not break it at the largest ε, but came nearest to that

    def take(self, held: _Held, slot: str) -> None:
        """Puts a clip where it is better than the one that is there."""
        there = getattr(self, slot)
        if there is None or held.key < there.key:
            setattr(self, slot, held)


class Candidates:
    """A few examples of a pass, and those of their adversarial clips that may be shown.

    An example counts as broken where it has less than half of what was right when clean: of one
    label, where it was right and is wrong. One that was wrong when clean is never broken.
    """

    def __init__(
        self,
        label: np.ndarray,
        correct: Float[np.ndarray, " N"],
        shape: tuple[int, ...],
        shown: int,
        seed: int,
    ):
        """Draws the candidates; those of dense labels are evenly spread.

        Args:
          label: of the valid clips, [N, …].
          correct: what is right when clean.
          shape: of one example.
          shown: how many are shown at most; there are none where inputs are no pictures.
          seed: of the draw.
        """
        size, self._shown = int(np.prod(shape)), 0
        if 2 <= len(shape) <= 4 and shown > 0:
            self._shown = min(shown, max(SHOWN_BELOW // (3 * size), FEWEST))
        places = np.zeros(0, int)
        if self._shown:
            count = min(max(HELD_BELOW // (_BYTES * size), FEWEST), MOST)
            dense = label.ndim > 1
            places = (
                spread_evenly(len(label), count) if dense else draw_by_class(label, count, seed)
            )
        luck = np.random.default_rng([seed, len(places)]).permutation(len(places))
        self.places = places
        self._all = {
            int(place): _Candidate(int(place), int(own), float(correct[place]))
            for place, own in zip(places, luck, strict=True)
        }

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Returns which of these places in the pass are those of candidates."""
        return np.flatnonzero(np.isin(places, self.places))

    def pairs(
        self,
        places: np.ndarray,
        batch: Mapping[str, np.ndarray],
        clips_at: ClipsAt,
        step_sizes: Float[np.ndarray, "batch steps time"] | None = None,
    ) -> dict[int, Pair]:
        """Returns the candidates of a batch whole, by their places.

        Args:
          places: of the batch's valid clips in the pass.
          batch: clean clips, uint8 or pixels in [0, 1].
          clips_at: gives the adversarial clips of some rows of the batch, pixels in [0, 1]; not
            called where the batch has no candidate.
          step_sizes: of temporal momentum, where the attack has it.
        """
        chosen = self.rows(places)
        if not len(chosen):
            return {}
        rows = np.flatnonzero(batch["valid"])[chosen]
        sizes = [None] * len(rows) if step_sizes is None else np.asarray(step_sizes)[rows]
        found = zip(places[chosen], rows, clips_at(rows), sizes, strict=True)
        return {
            int(place): Pair(_as_levels(batch["clip"][row]), _as_clip(clip.astype(np.float16)), own)
            for place, row, clip, own in found
        }

    def offer(
        self,
        line: int,
        epsilon: float,
        places: np.ndarray,
        right: np.ndarray,
        confidence: np.ndarray,
        clips: Mapping[int, Pair] | Again,
    ) -> None:
        """Takes what an attack found of a batch.

        Args:
          line: number of the attack and ε.
          epsilon: radius.
          places: of the batch's valid clips in the pass.
          right: what was right of each.
          confidence: of each prediction; NaN where labels are of pixels.
          clips: of the candidates among them, by place.
        """
        for row in self.rows(places):
            place, sure = int(places[row]), float(confidence[row])
            one, left, known = self._all[place], float(right[row]), not np.isnan(sure)
            clip = clips if isinstance(clips, Again) else clips[place]
            if one.clean > 0 and left < one.clean / 2:
                one.take(_Held((epsilon, line, left), line, clip), "first")
                if known:
                    one.take(_Held((-sure, line), line, clip), "surest")
                one.nearest = None
            elif one.first is None:
                key = -epsilon, left, sure if known else 0.0, line
                one.take(_Held(key, line, clip), "nearest")

    def choose(self) -> list[Chosen]:
        """Returns examples to show, a quarter for each reason where there are as many.

        Examples that the smallest ε breaks are taken first, then the most confident failures,
        survivors, and any others by luck. The line is what broke an example at the smallest ε; of a
        confident failure the one that is most confident; of an example that was not broken the one
        of the largest ε that leaves it the least confidence.
        """
        chosen: list[Chosen] = []
        free = sorted(self._all.values(), key=lambda one: one.luck)
        each = -(-self._shown // 4)
        for why, order in _ORDERS.items():
            found = [(order(one), one) for one in free]
            found = [(held, one) for held, one in found if held is not None]
            if why in (SMALLEST, CONFIDENT):  # stable: luck decides among equals
                found.sort(key=lambda pair: pair[0].key[0])
            for held, one in found[: min(each, self._shown - len(chosen))]:
                chosen.append(Chosen(one.place, held.line, why, held.clip))
                free.remove(one)
        return chosen


_ORDERS: dict[str, Callable[[_Candidate], _Held | None]] = {
    SMALLEST: lambda one: one.first,
    CONFIDENT: lambda one: one.surest,
    SURVIVOR: lambda one: one.nearest if one.clean > 0 and one.first is None else None,
    RANDOM: lambda one: one.first or one.nearest,
}


def _as_levels(clip: np.ndarray) -> UInt8[np.ndarray, "time height width channels"]:
    """Grey levels of a clip."""
    clip = np.array(clip)  # a copy: the batch is not held for one of its clips
    if clip.dtype != np.uint8:
        clip = np.rint(255 * np.clip(clip.astype(np.float32), 0, 1)).astype(np.uint8)
    return _as_clip(clip)


def _as_clip(example: np.ndarray) -> np.ndarray:
    """An image as a clip of one frame, and what has no channels with one."""
    if example.ndim == 2:
        example = example[..., None]
    return example[None] if example.ndim == 3 else example
