"""A view of an example: the frames and the crop that become one clip or image.

T = frames, H = height, W = width of the clip; a label map is cropped with its image
"""

import dataclasses
from typing import Any

import numpy as np

from jaxmoe.data.loading.augmentation import Step
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
        window = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        label = np.asarray(example["label"], np.int32)
        return {
            "clip": stored[chosen][:, *window],
            "label": label[window] if label.ndim else label,
            "index": np.int32(example["index"]),
        }


@dataclasses.dataclass(frozen=True)
class RandomView:
    """A view drawn anew each time, for training: random frames, then the steps of an augmentation.

    Attributes:
      frames: T.
      stride: step between frames of a window, or None for the whole video; see
        `temporal_sampling` for videos of a variable rate.
      speed_jitter: how much faster or slower a window may be, as a share.
      steps: what is done to whole frames, in order; a crop is among them.
    """

    frames: int
    stride: int | None
    speed_jitter: float
    steps: tuple[Step, ...]

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Maps an example of a `ClipSource` to `clip` `uint8[T, H, W, 3]`, `label`, `index`."""
        stored = example["frames"]
        if self.stride is None:
            chosen = random_uniform_frames(len(stored), self.frames, rng, stored.times)
        else:
            taken = len(stored), self.frames, self.stride
            chosen = random_window_frames(*taken, rng, stored.times, self.speed_jitter)
        clip, label = stored[chosen], np.asarray(example["label"], np.int32)
        for step in self.steps:
            clip, label = step(clip, label, rng)
        return {"clip": clip, "label": label, "index": np.int32(example["index"])}


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
    """A view of an image drawn anew each time, for training.

    Attributes:
      steps: what is done to the whole image, in order; a crop is among them.
    """

    steps: tuple[Step, ...]

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Maps an example of a `ClipSource` to `clip` `uint8[H, W, 3]`, `label`, `index`."""
        return _first_frame(RandomView(1, None, 0.0, self.steps)(example, rng))


def _first_frame(example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**example, "clip": example["clip"][0]}
