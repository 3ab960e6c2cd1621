"""TFDS builder of the embedded default dataset: clips told apart by motion alone."""

import os
from collections.abc import Iterator

import numpy as np

from jaxmoe.data.actions import CLASSES, render_actions
from jaxmoe.data.clip_builder import ClipBuilder, PlannedClip, Progress
from jaxmoe.data.listing import SPLITS
from jaxmoe.data.prepare import cache_folder, fingerprint

_RENDERED_AT_ONCE = 64


class SyntheticActions(ClipBuilder, skip_registration=True):
    """Ten motions of a textured blob over a moving background (`jaxmoe.data.actions`).

    A clip depends on (seed, split, its number in the split, frames, size): asking for more clips
    of one split changes no other clip. Labels go round the classes in turn.

    Args of the constructor: `frames` per clip; `size`, height and width in pixels; `train`,
    `validation`, `test`, clips per split, at least 1 each; `seed`; `cache`, the folder for
    prepared data; `progress(done, total)`. Raises `ValueError` naming the field.
    """

    name = "synthetic_actions"

    def __init__(
        self,
        *,
        frames: int,
        size: int,
        train: int,
        validation: int,
        test: int,
        seed: int,
        cache: str | os.PathLike | None = None,
        progress: Progress | None = None,
    ):
        counts = dict(zip(SPLITS, (train, validation, test), strict=True))
        for split, count in counts.items():
            if count < 1:
                raise ValueError(f"data.{split}_clips: {count}; a split has at least 1 clip")
        if seed < 0:
            raise ValueError(f"data.seed: {seed}; a seed is at least 0")
        render_actions(np.zeros(0, np.int64), [], frames, size)  # checks frames and size
        self._frames = frames
        self._size = size
        plan: dict[str, list[PlannedClip]] = {}
        index = 0
        for number, (split, count) in enumerate(counts.items()):
            plan[split] = []
            for i in range(count):
                key = (seed, number, i)
                clip = PlannedClip(index, f"{split}/{seed}-{i}", i % len(CLASSES), key)
                plan[split].append(clip)
                index += 1
        super().__init__(
            plan=plan,
            classes=CLASSES,
            codec="raw",
            fingerprint=fingerprint(
                builder=self.name,
                version=str(self.VERSION),
                frames=frames,
                size=size,
                counts=counts,
                seed=seed,
            ),
            data_dir=cache_folder(cache),
            progress=progress,
        )

    def render(self, clips: list[PlannedClip]) -> Iterator[np.ndarray]:
        """Renders the clips in order, some at a time."""
        for start in range(0, len(clips), _RENDERED_AT_ONCE):
            part = clips[start : start + _RENDERED_AT_ONCE]
            labels = np.array([clip.label for clip in part])
            yield from render_actions(
                labels, [clip.source for clip in part], self._frames, self._size
            )
