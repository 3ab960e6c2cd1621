"""The steps of an augmentation that cut a clip to the size that a model sees.

T = frames, H = height, W = width; a step is described in `augmentation`
"""

import dataclasses
import math

import numpy as np
from PIL import Image

_NARROWEST = 3 / 4  # width to height of a resized crop, as a share of what a model sees


@dataclasses.dataclass(frozen=True)
class Padding:
    """Adds black pixels around a frame, and void ones, −1, around its label map.

    Attributes:
      pixels: on each side.
    """

    pixels: int

    def __call__(
        self, clip: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns both with their borders; draws nothing."""
        del rng
        around = (self.pixels, self.pixels)
        if label.ndim:
            label = np.pad(label, self.pixels, constant_values=-1)
        return np.pad(clip, ((0, 0), around, around, (0, 0))), label


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Cuts out a part of one size from anywhere.

    Attributes:
      size: H and W, at most those of the frames.
    """

    size: tuple[int, int]

    def __call__(
        self, clip: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the same part of every frame, and of the label map."""
        top = int(rng.integers(0, clip.shape[1] - self.size[0] + 1))
        left = int(rng.integers(0, clip.shape[2] - self.size[1] + 1))
        window = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        return clip[:, *window], label[window] if label.ndim else label


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """Cuts out a part of a random area and shape, and resizes it.

    Szegedy et al., Going Deeper with Convolutions, 2015, section 6
    (https://arxiv.org/abs/1409.4842). The shape is up to 4/3 times as wide, or as high, as what a
    model sees. Frames are resized bilinearly, label maps by the nearest pixel.

    Attributes:
      size: H and W of what a model sees.
      least: smallest share of a frame's area, in (0, 1].
    """

    size: tuple[int, int]
    least: float

    def __call__(
        self, clip: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the same part of every frame, and of the label map."""
        height, width = self.size
        shapes = _NARROWEST * width / height, width / height / _NARROWEST
        top, left, rows, columns = random_box(clip.shape[1:3], (self.least, 1), shapes, rng)
        part = clip[:, top : top + rows, left : left + columns]
        if label.ndim:
            label = label[top + _nearest(rows, height)[:, None], left + _nearest(columns, width)]
        return _resized(part, self.size), label


def random_box(
    size: tuple[int, int],
    shares: tuple[float, float],
    shapes: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Returns a random box in a frame: top, left, height, width, in whole pixels.

    Its area is uniform, its shape log-uniform among those with which this area fits, its place
    uniform. An area that fits with no shape is the largest that does.

    Args:
      size: H and W of the frame.
      shares: least and most area, as shares of the frame's.
      shapes: least and most width to height.
      rng: where all is drawn from.
    """
    height, width = size
    largest = min(height * width, height**2 * shapes[1], width**2 / shapes[0])
    area = min(rng.uniform(*shares) * height * width, largest)
    low = math.log(max(shapes[0], area / height**2))
    high = math.log(min(shapes[1], width**2 / area))
    shape = math.exp(low + (high - low) * rng.random())
    rows = min(max(1, round(math.sqrt(area / shape))), height)
    columns = min(max(1, round(math.sqrt(area * shape))), width)
    top = int(rng.integers(0, height - rows + 1))
    left = int(rng.integers(0, width - columns + 1))
    return top, left, rows, columns


def _resized(clip: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Every frame resized bilinearly to `size` = (H, W); Pillow averages where it shrinks."""
    if clip.shape[1:3] == size:
        return clip
    clip, (height, width) = np.ascontiguousarray(clip), size
    images = (Image.fromarray(frame) for frame in clip)
    frames = [image.resize((width, height), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(frame) for frame in frames])


def _nearest(stored: int, shown: int) -> np.ndarray:
    """The places of `stored` pixels in a row in which the middles of `shown` pixels lie."""
    return (2 * np.arange(shown) + 1) * stored // (2 * shown)
