"""TFDS builders of the embedded datasets, which are rendered: motions, and shapes."""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from jaxmoe.data.actions import CLASSES, render_actions
from jaxmoe.data.clip_builder import ClipBuilder, PlannedClip, Progress
from jaxmoe.data.listing import SPLITS
from jaxmoe.data.prepare import cache_folder, fingerprint
from jaxmoe.data.shapes import SHAPES, render_shapes

_RENDERED_AT_ONCE = 64


class _Synthetic(ClipBuilder, skip_registration=True):
    """Rendered clips. Labels go round the classes in turn.

    A clip depends on (seed, split, its number in the split, `sizes`): asking for more clips of one
    split changes no other clip.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        sizes: dict[str, int],
        *,
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
        self._sizes = sizes
        plan: dict[str, list[PlannedClip]] = {}
        index = 0
        for number, (split, count) in enumerate(counts.items()):
            plan[split] = []
            for i in range(count):
                key = (seed, number, i)
                clip = PlannedClip(index, f"{split}/{seed}-{i}", i % len(classes), key)
                plan[split].append(clip)
                index += 1
        super().__init__(
            plan=plan,
            classes=classes,
            codec="raw",
            fingerprint=fingerprint(
                builder=self.name, version=str(self.VERSION), **sizes, counts=counts, seed=seed
            ),
            data_dir=cache_folder(cache),
            progress=progress,
        )

    def draw(self, labels: np.ndarray, keys: list[tuple[int, ...]]) -> Iterable[np.ndarray]:
        """Yields the frames `uint8[T, H, W, 3]` of each clip."""
        raise NotImplementedError

    def render(self, clips: list[PlannedClip]) -> Iterator[np.ndarray]:
        """Renders the clips in order, some at a time."""
        for start in range(0, len(clips), _RENDERED_AT_ONCE):
            part = clips[start : start + _RENDERED_AT_ONCE]
            labels = np.array([clip.label for clip in part])
            yield from self.draw(labels, [clip.source for clip in part])


class SyntheticActions(_Synthetic, skip_registration=True):
    """Ten motions of a textured blob over a moving background (`jaxmoe.data.actions`).

    Args of the constructor: `frames` per clip; `size`, height and width in pixels; `train`,
    `validation`, `test`, clips per split, at least 1 each; `seed`; `cache`, the folder for
    prepared data; `progress(done, total)`. Raises `ValueError` naming the field.
    """

    name = "synthetic_actions"

    def __init__(self, *, frames: int, size: int, **fields):
        render_actions(np.zeros(0, np.int64), [], frames, size)  # checks frames and size
        super().__init__(CLASSES, {"frames": frames, "size": size}, **fields)

    def draw(self, labels: np.ndarray, keys: list[tuple[int, ...]]) -> Iterable[np.ndarray]:
        """Clips that show each label's motion."""
        return render_actions(labels, keys, **self._sizes)


class SyntheticShapes(_Synthetic, skip_registration=True):
    """Ten shapes, one in each image, told apart by their outline (`jaxmoe.data.shapes`).

    Args of the constructor: those of `SyntheticActions` without `frames`.
    """

    name = "synthetic_shapes"

    def __init__(self, *, size: int, **fields):
        render_shapes(np.zeros((0, 1), np.int64), [], size)  # checks size
        super().__init__(SHAPES, {"size": size}, **fields)

    def draw(self, labels: np.ndarray, keys: list[tuple[int, ...]]) -> Iterable[np.ndarray]:
        """Images of each label's shape, as clips of one frame."""
        return render_shapes(labels[:, None], keys, **self._sizes)[0][:, None]
