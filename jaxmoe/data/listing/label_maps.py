"""Reads label maps from image files: numbers or colours to classes, void where neither is one.

h, w = height and width of the map as stored; H, W = those of its image
"""

import functools
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxmoe.data.decoding.frame_codec import VOID
from jaxmoe.data.decoding.still import read_colour_map, read_map, turn
from jaxmoe.data.decoding.unusable import UnusableClipError

Colour = tuple[int, int, int]
ReadMap = Callable[[pathlib.Path, tuple[int, int], int], UInt8[np.ndarray, "H W"]]
"""`(file, (H, W), turned) -> class numbers and VOID`.

H and W are those of its image, which was turned upright by this EXIF orientation; an
`UnusableClipError` says why there are none.
"""


def read_numbers(classes: Mapping[int, int]) -> ReadMap:
    """Reads maps of numbers in one channel, or of a palette's indices.

    Args:
      classes: from a pixel's value, 0 to 255, to its class; all other values are void.
    """
    table = np.full(256, VOID, np.uint8)
    table[list(classes)] = list(classes.values())

    def labels(values):
        known = (values >= 0) & (values < 256)
        return np.where(known, table[values & 255], VOID).astype(np.uint8)

    return functools.partial(_read, read_map, labels)


def read_colours(classes: Mapping[Colour, int]) -> ReadMap:
    """Reads maps of colours.

    Args:
      classes: from a pixel's RGB colour to its class; all other colours are void.
    """
    packed = np.array([_pack(np.array(colour)) for colour in classes])
    order = np.argsort(packed)
    packed, numbers = packed[order], np.array(list(classes.values()), np.uint8)[order]

    def labels(colours):
        values = _pack(colours)
        place = np.searchsorted(packed, values).clip(max=len(packed) - 1)
        return np.where(packed[place] == values, numbers[place], VOID)

    return functools.partial(_read, read_colour_map, labels)


def _read(
    read: Callable[[pathlib.Path], tuple[np.ndarray, int]],
    labels: Callable[[np.ndarray], UInt8[np.ndarray, "h w"]],
    file: pathlib.Path,
    shape: tuple[int, int],
    turned: int,
) -> UInt8[np.ndarray, "H W"]:
    """The file's classes on its image's grid, each from the nearest pixel."""
    if not file.is_file():
        raise UnusableClipError(f"no label map {file.name}")
    try:
        pixels, own = read(file)
        label_map = _upright(labels(pixels), own, shape, turned)
    except UnusableClipError as error:
        raise UnusableClipError(f"label map {file.name} {error}") from error
    height, width = shape
    resized = Image.fromarray(label_map).resize((width, height), Image.Resampling.NEAREST)
    if np.all(np.asarray(resized) == VOID):
        raise UnusableClipError(f"label map {file.name} has no pixel of a known class")
    return np.asarray(resized)


def _upright(
    stored: UInt8[np.ndarray, "h w"], own: int, shape: tuple[int, int], turned: int
) -> UInt8[np.ndarray, "h w"]:
    """The map turned as its image was; refused where nothing tells whether it was turned before.

    Args:
      stored: class numbers.
      own: the EXIF orientation by which the map was turned itself.
      shape: of its image, upright.
      turned: the image's EXIF orientation.
    """
    candidates = [stored]
    if own == 1 and turned != 1:
        candidates.append(turn(stored, turned))
    fitting = [candidate for candidate in candidates if _fits(candidate.shape, shape)]
    if not fitting:
        raise UnusableClipError(
            f"is {stored.shape[1]} × {stored.shape[0]}; expected the shape of its image, which is "
            f"{shape[1]} × {shape[0]}, upright and resized"
        )
    if len(fitting) > 1:
        raise UnusableClipError(
            f"may be turned or not: its image is turned by EXIF (orientation {turned}), and the "
            "map's sides do not tell; expected images that are stored upright"
        )
    return fitting[0]


def _fits(map_shape: tuple[int, int], shape: tuple[int, int]) -> bool:
    (rows, columns), (height, width) = map_shape, shape
    return abs(columns * height - rows * width) <= max(rows, columns)


def _pack(colours: np.ndarray) -> np.ndarray:
    """RGB colours as one number each."""
    return colours.astype(np.int64) @ np.array([65536, 256, 1])
