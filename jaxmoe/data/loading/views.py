"""A view of an example: the frames and the crop that become one clip or image.

T = frames, H = height, W = width of the clip; a label map is cropped with its image
"""

import dataclasses
from typing import Any

import numpy as np

from jaxmoe.data.loading.temporal_sampling import (
    random_uniform_frames,
    random_window_frames,
    uniform_frames,
    window_frames,
)


@dataclasses.dataclass(frozen=True)
class CentreView:
    """The same view each time, for evaluation: frames evenly spread, crop from the middle.

    Attributes:
      frames: T.
      size: H and W, at most those of the stored frames.
      stride: step between frames of a window, or None for the whole video; see
        `temporal_sampling` for videos of a variable rate.
    """

    frames: int
    size: tuple[int, int]
    stride: int | None

    def __call__(self, example: dict[str, Any]) -> dict[str, np.ndarray]:
        """Maps an example of a `ClipSource` to `clip` `uint8[T, H, W, 3]`, `label`, `index`."""
        stored = example["frames"]
        if self.stride is None:
            chosen = uniform_frames(len(stored), self.frames, stored.times)
        else:
            chosen = window_frames(len(stored), self.frames, self.stride, stored.times)
        top = (stored.height - self.size[0]) // 2
        left = (stored.width - self.size[1]) // 2
        return _clip(example, chosen, top, left, self.size, flip=False)


@dataclasses.dataclass(frozen=True)
class RandomView:
    """A view drawn anew each time, for training: random frames, random crop, maybe mirrored.

    Attributes:
      frames: T.
      size: H and W, at most those of the stored frames.
      stride: step between frames of a window, or None for the whole video; see
        `temporal_sampling` for videos of a variable rate.
      flip: mirror left and right with probability 1/2; not where left and right are classes.
    """

    frames: int
    size: tuple[int, int]
    stride: int | None
    flip: bool

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Maps an example of a `ClipSource` to `clip` `uint8[T, H, W, 3]`, `label`, `index`."""
        stored = example["frames"]
        if self.stride is None:
            chosen = random_uniform_frames(len(stored), self.frames, rng, stored.times)
        else:
            chosen = random_window_frames(len(stored), self.frames, self.stride, rng, stored.times)
        top = int(rng.integers(0, stored.height - self.size[0] + 1))
        left = int(rng.integers(0, stored.width - self.size[1] + 1))
        flip = self.flip and bool(rng.integers(0, 2))
        return _clip(example, chosen, top, left, self.size, flip)


@dataclasses.dataclass(frozen=True)
class CentreImage:
    """The middle of an image, for evaluation.

    Attributes:
      size: H and W, at most the image's.
    """

    size: tuple[int, int]

    def __call__(self, example: dict[str, Any]) -> dict[str, np.ndarray]:
        """Maps an example of a `ClipSource` to `clip` `uint8[H, W, 3]`, `label`, `index`."""
        return _first_frame(CentreView(1, self.size, None)(example))


@dataclasses.dataclass(frozen=True)
class RandomImage:
    """A crop drawn anew each time, for training, maybe mirrored.

    Attributes:
      size: H and W, at most the image's.
      flip: mirror left and right with probability 1/2.
      padding: black pixels around the image before it is cropped; 4 is usual for CIFAR.
    """

    size: tuple[int, int]
    flip: bool
    padding: int

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Maps an example of a `ClipSource` to `clip` `uint8[H, W, 3]`, `label`, `index`."""
        padded = {**example, "frames": _Padded(example["frames"], self.padding)}
        if np.ndim(example["label"]):
            padded["label"] = np.pad(example["label"], self.padding, constant_values=-1)
        return _first_frame(RandomView(1, self.size, None, self.flip)(padded, rng))


class _Padded:
    """An image, as one frame, with black pixels around it."""

    times = None

    def __init__(self, frames: Any, padding: int):
        self._frames = frames
        self._padding = padding
        self.height = frames.height + 2 * padding
        self.width = frames.width + 2 * padding

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, frames: np.ndarray) -> np.ndarray:
        around = (self._padding, self._padding)
        return np.pad(self._frames[frames], ((0, 0), around, around, (0, 0)))


def _first_frame(example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**example, "clip": example["clip"][0]}


def _clip(
    example: dict[str, Any],
    chosen: np.ndarray,
    top: int,
    left: int,
    size: tuple[int, int],
    flip: bool,
) -> dict[str, np.ndarray]:
    window = slice(top, top + size[0]), slice(left, left + size[1])
    clip, label = example["frames"][chosen][:, *window], np.asarray(example["label"], np.int32)
    if label.ndim:
        label = label[window]
        label = label[:, ::-1] if flip else label
    return {
        "clip": clip[:, :, ::-1] if flip else clip,
        "label": label,
        "index": np.int32(example["index"]),
    }
