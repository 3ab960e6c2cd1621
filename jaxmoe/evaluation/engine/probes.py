"""Clips of a pass that stand for all of them in the checks, drawn while the pass goes on."""

from typing import NamedTuple

import numpy as np

from jaxmoe.evaluation.engine.part import SEED, luckiest, shares_of, totals_of


class _Clip(NamedTuple):
    label: int  # 0 where every position has its own
    luck: float
    place: int  # in the pass
    fields: dict[str, np.ndarray]


class Probes:
    """The examples that `draw_by_class` draws, without a second pass.

    Twice as many are kept on the way, for a class may turn out to have a larger share. Where labels
    are of positions all clips are of one class.
    """

    def __init__(self, batches: int, seed: int = SEED):
        """Draws as many clips as `batches` of the pass hold."""
        self._batches = batches
        self._seed = seed
        self._draw = np.random.default_rng(seed)
        self._size = 0
        self._totals: dict[int, int] = {}
        self._kept: list[_Clip] = []

    def add(self, batch: dict[str, np.ndarray]) -> None:
        """Takes the next batch of the pass."""
        batch = {name: np.asarray(values) for name, values in batch.items()}
        self._size = self._size or len(batch["valid"])
        seen = sum(self._totals.values())
        valid = np.flatnonzero(batch["valid"])
        labels = batch["label"][valid]
        labels = np.zeros(len(valid), int) if labels.ndim > 1 else labels.astype(int)
        for label, number in totals_of(labels).items():
            self._totals[label] = self._totals.get(label, 0) + number
        luck = self._draw.random(len(valid))
        for number, (label, own, place) in enumerate(zip(labels, luck, valid, strict=True)):
            fields = {name: values[place] for name, values in batch.items()}
            self._kept.append(_Clip(int(label), float(own), seen + number, fields))
        # Copies, so that no batch stays in memory for one of its clips.
        self._kept = [
            clip._replace(fields={name: np.array(value) for name, value in clip.fields.items()})
            if clip.place >= seen
            else clip
            for clip in self._chosen(2 * self._batches * self._size)
        ]

    def drawn(self) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
        """Returns the clips in batches of the pass's size, and their places in the pass."""
        clips = self._chosen(self._batches * self._size)
        batches = []
        for start in range(0, len(clips), self._size or 1):
            part = clips[start : start + self._size]
            # What is missing is filled up with the first clip, which is not valid.
            filled = part + clips[:1] * (self._size - len(part))
            batch = {
                name: np.stack([clip.fields[name] for clip in filled]) for name in part[0].fields
            }
            batches.append({**batch, "valid": np.arange(self._size) < len(part)})
        return batches, np.array([clip.place for clip in clips], int)

    def _chosen(self, count: int) -> list[_Clip]:
        if len(self._kept) <= count:
            return self._kept
        if not count:
            return []
        labels = np.array([clip.label for clip in self._kept])
        luck = np.array([clip.luck for clip in self._kept])
        chosen = luckiest(labels, luck, shares_of(self._totals, count, self._seed))
        return [self._kept[place] for place in chosen]
