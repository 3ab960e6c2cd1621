"""Clips as PNG strips, all frames side by side, within a budget of bytes.

Axes: T = frames, H = height, W = width, C = channels.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxmoe.reporting.page.figures.heat import data_uri

# How a clip is made smaller until it fits: colours of a palette (0: all), pixels of the longer
# side at most, frames at most.
_LADDER = (
    (0, 4096, 4096),
    (0, 128, 32),
    (128, 128, 32),
    (64, 96, 16),
    (32, 64, 16),
    (32, 64, 8),
    (16, 48, 8),
    (16, 32, 4),
)
_HOPE = 1.5  # frames together may take less than each by itself
_SCALES = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)


class Strip(NamedTuple):
    """All frames of a clip in one picture.

    Attributes:
      uri: a PNG that holds them side by side.
      frames: how many there are in it.
      width: of a frame, in pixels of the picture.
      height: the same.
      places: which frames of the clip they are.
      exact: whether every pixel is as it was.
    """

    uri: str
    frames: int
    width: int
    height: int
    places: tuple[int, ...]
    exact: bool


def strips_of(
    clips: Sequence[UInt8[np.ndarray, "T H W C"]], budget: int, *, maps: bool = False
) -> list[Strip]:
    """Returns clips of one shape as strips of the same frames at the same size.

    Args:
      clips: of one shape.
      budget: bytes of all of them; where nothing fits they are the smallest that there is.
      maps: whether a colour means a class; then no colour comes between two others.
    """
    clips = [_coloured(clip) for clip in clips]
    length, own = len(clips[0]), clips[0].shape[1:3]
    for rung, (colours, side, most) in enumerate(_LADDER):
        colours = 0 if maps else colours
        places = np.unique(np.linspace(0, length - 1, min(most, length)).astype(int))
        size = _fitted(*own, side)
        last = rung == len(_LADDER) - 1
        # One frame tells what all would take: large clips are not compressed again and again.
        one = sum(len(_png(clip[places[:1]], colours, size, maps)) for clip in clips)
        if one * len(places) > _HOPE * budget and not last:
            continue
        pngs = [_png(clip[places], colours, size, maps) for clip in clips]
        if sum(map(len, pngs)) <= budget or last:
            break
    height, width = size
    exact = not colours and size == own and len(places) == length
    shown = len(places), width, height, tuple(places.tolist()), exact
    return [Strip(data_uri(png), *shown) for png in pngs]


def _fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """The size at which the longer side is no longer than `side`."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _png(frames: np.ndarray, colours: int, size: tuple[int, int], maps: bool) -> bytes:
    """The frames beside each other, of a size, in so many colours or all."""
    from PIL import Image

    between = Image.Resampling.NEAREST if maps else Image.Resampling.BICUBIC

    if size != frames.shape[1:3]:
        small = [Image.fromarray(frame).resize(size[::-1], between) for frame in frames]
        frames = np.stack([np.asarray(frame) for frame in small])
    beside = Image.fromarray(np.concatenate(list(frames), axis=1))
    if colours:
        beside = beside.quantize(colours, method=Image.Quantize.FASTOCTREE)
    written = io.BytesIO()
    beside.save(written, format="PNG")
    return written.getvalue()


def amplified(
    adversarial: Float[np.ndarray, "T H W C"], clean: UInt8[np.ndarray, "T H W C"]
) -> tuple[UInt8[np.ndarray, "T H W C"], int]:
    """Returns `0.5 + k δ` as pixels, and the round k at which the largest change is just seen."""
    difference = adversarial.astype(np.float32) - clean.astype(np.float32) / 255
    largest = float(np.abs(difference).max()) if difference.size else 0.0
    scale = max((k for k in _SCALES if k * largest <= 0.5), default=1) if largest > 0 else 1
    return as_pixels(0.5 + scale * difference), scale


def as_pixels(clip: np.ndarray) -> UInt8[np.ndarray, "T H W C"]:
    """Returns a clip of 0–1 in 256 levels."""
    return np.round(255 * np.clip(clip.astype(np.float32), 0, 1)).astype(np.uint8)


def label_colours(labels: Int[np.ndarray, "T H W"], classes: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Returns label maps in colours that differ; void pixels, below 0, are black."""
    colours = palette(max(classes, int(labels.max(initial=0)) + 1))
    return np.where(labels[..., None] >= 0, colours[np.maximum(labels, 0)], 0).astype(np.uint8)


def palette(classes: int) -> UInt8[np.ndarray, "classes 3"]:
    """Returns a colour for each class: eight that the colour-blind can tell apart come first."""
    first = ["56b4e9", "e69f00", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7", "999999"]
    known = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in first], np.float64)
    number = np.arange(classes)
    shade = 1 - 0.28 * (number // len(first) % 3)  # each further round is darker
    return (known[number % len(first)] * shade[:, None]).astype(np.uint8)


def _coloured(clip: np.ndarray) -> np.ndarray:
    """The clip in grey or three colours; other channels are shown as their mean."""
    channels = clip.shape[-1]
    if channels == 3:
        return clip
    grey = clip[..., :1] if channels == 1 else clip.mean(-1, keepdims=True).astype(np.uint8)
    return np.repeat(grey, 3, axis=-1)
