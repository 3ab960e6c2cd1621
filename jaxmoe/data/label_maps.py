"""Reads label maps from image files: numbers or colours to classes, void where neither is one.

H = height, W = width
"""

import pathlib
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from jaxmoe.data.clip_builder import UnusableClipError
from jaxmoe.data.frame_codec import VOID

Colour = tuple[int, int, int]
ReadMap = Callable[[pathlib.Path, tuple[int, int]], UInt8[np.ndarray, "H W"]]
"""`(file, (H, W)) -> class numbers and VOID`; an `UnusableClipError` says why there are none."""


def read_numbers(classes: Mapping[int, int]) -> ReadMap:
    """Reads maps of numbers in one channel, or of a palette's indices.

    Args:
      classes: from a pixel's value, 0 to 255, to its class; all other values are void.
    """
    table = np.full(256, VOID, np.uint8)
    table[list(classes)] = list(classes.values())

    def read(file, shape):
        values = _open(file, shape)
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
            raise UnusableClipError(
                f"label map {file.name} has colours or fractions; expected class numbers"
            )
        known = (values >= 0) & (values < 256)
        return _labelled(file, np.where(known, table[values & 255], VOID).astype(np.uint8))

    return read


def read_colours(classes: Mapping[Colour, int]) -> ReadMap:
    """Reads maps of colours.

    Args:
      classes: from a pixel's RGB colour to its class; all other colours are void.
    """
    packed = np.array([_pack(np.array(colour)) for colour in classes])
    order = np.argsort(packed)
    packed, numbers = packed[order], np.array(list(classes.values()), np.uint8)[order]

    def read(file, shape):
        image = _open(file, shape)
        if image.ndim != 3 or image.shape[-1] < 3:
            raise UnusableClipError(f"label map {file.name} has numbers; expected colours")
        values = _pack(image)
        place = np.searchsorted(packed, values).clip(max=len(packed) - 1)
        return _labelled(file, np.where(packed[place] == values, numbers[place], VOID))

    return read


def _open(file: pathlib.Path, shape: tuple[int, int]) -> Shaped[np.ndarray, "H W *channels"]:
    """The map's pixels; those of another resolution than the image are taken from the nearest."""
    if not file.is_file():
        raise UnusableClipError(f"no label map {file.name}")
    try:
        with Image.open(file) as image:
            height, width = shape
            if abs(image.width * height - image.height * width) > max(image.size):
                raise UnusableClipError(
                    f"label map {file.name} is {image.width} × {image.height}, its image, as "
                    f"stored, {width} × {height}"
                )
            return np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
    except UnusableClipError:
        raise
    # PIL's decoders raise what they like of a broken file.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableClipError(f"label map {file.name} cannot be decoded: {reason}") from error


def _labelled(file: pathlib.Path, label_map: np.ndarray) -> np.ndarray:
    if np.all(label_map == VOID):
        raise UnusableClipError(f"label map {file.name} has no pixel of a known class")
    return label_map


def _pack(colours: np.ndarray) -> np.ndarray:
    """RGB colours as one number each."""
    return colours[..., :3].astype(np.int64) @ np.array([65536, 256, 1])
