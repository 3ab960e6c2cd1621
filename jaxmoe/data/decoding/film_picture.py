"""Turns the decoded frames of a film into RGB pictures, as a player shows them.

H = height, W = width
"""

import math
from typing import Any, NamedTuple

import av
import numpy as np
from jaxtyping import UInt8

from jaxmoe.data.decoding.picture import on_black, stored_size

_AXIS = math.cos(math.radians(1))  # the fixed-point numbers of a quarter turn are not exact
# Wider or higher pixels than any standard has: a header that is wrong.
_LONGEST_PIXEL = 10
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics, ITU-T H.273 table 3


class UnreadableVideoError(Exception):
    """Says in one line why a file cannot be used as a video."""


class Orientation(NamedTuple):
    """How a stored picture is turned upright: transposed first, then mirrored.

    Attributes:
      transpose: rows become columns.
      down: mirrored top to bottom.
      across: mirrored left to right.
    """

    transpose: bool = False
    down: bool = False
    across: bool = False

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Returns `[H, W, ...]` turned, a view."""
        turned = picture.swapaxes(0, 1) if self.transpose else picture
        return turned[:: -1 if self.down else 1, :: -1 if self.across else 1]


def orientation(matrix: bytes | None) -> Orientation:
    """Returns what a display matrix asks for: one of the eight ways to lay a picture.

    A point (x, y) of the picture, y downwards, is shown at (a x + c y, b x + d y). The size that
    the matrix gives is left aside: pictures are stored at a size of their own.

    Args:
      matrix: nine int32, row by row, of which a, b, c and d are the first, second, fourth and
        fifth (ISO/IEC 14496-12 section 8.3.2); None, or one without area, leaves a picture as is.

    Raises:
      UnreadableVideoError: it turns by no quarter, or shears.
    """
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
    right, down = math.hypot(a, b), math.hypot(c, d)
    if not a * d - b * c:
        return Orientation()
    if min(abs(a) / right, abs(d) / down) > _AXIS:
        return Orientation(False, d < 0, a < 0)
    if min(abs(b) / right, abs(c) / down) > _AXIS:
        return Orientation(True, b < 0, c < 0)
    angle = math.degrees(math.atan2(b, a))
    raise UnreadableVideoError(
        f"its display matrix turns it by {angle:.0f}°, or shears it; accepted are quarter turns "
        "and mirror images"
    )


class FilmPictures:
    """Makes RGB pictures of one size, upright, with square pixels, of the frames of a stream.

    Args:
      stream: the open stream that frames come from.
      resolution: the shorter side of the pictures in pixels, at least 1.
    """

    def __init__(self, stream: Any, resolution: int):
        self._resolution = resolution
        self._codec = stream.codec_context
        # A container's word on the shape of pixels counts before its codec's.
        self._pixel = stream.sample_aspect_ratio or 0
        self._by_codec = self._pixel == (self._codec.sample_aspect_ratio or 0)
        self._shape: tuple[int, int] | None = None

    def __call__(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        """Returns a frame's picture.

        Raises:
          UnreadableVideoError: high dynamic range, another shape of picture than before, pixels
            of no possible shape, or an orientation that is none of the eight.
        """
        if self._codec.color_trc in _HDR:
            raise UnreadableVideoError(
                f"high dynamic range ({_HDR[self._codec.color_trc]}); convert it to BT.709 first"
            )
        upright = orientation(_display_matrix(frame))
        shown = frame.width * self._pixel_shape(), frame.height
        width, height = stored_size(*shown, self._resolution)
        shape = (width, height) if upright.transpose else (height, width)
        if self._shape is None:
            self._shape = shape
        if max(abs(now - first) for now, first in zip(shape, self._shape, strict=True)) > 1:
            raise UnreadableVideoError(
                f"its picture changes shape, from {_words(self._shape)} to {_words(shape)} as "
                "stored; accepted is one shape in a file"
            )
        height, width = self._shape[::-1] if upright.transpose else self._shape
        return upright.apply(_rgb(frame, width, height))

    def _pixel_shape(self) -> float:
        """Width of a pixel by its height; 1 where nobody says."""
        pixel = self._codec.sample_aspect_ratio if self._by_codec else None
        ratio = float(pixel or self._pixel or 1)
        if not 1 / _LONGEST_PIXEL <= ratio <= _LONGEST_PIXEL:
            raise UnreadableVideoError(
                f"its pixels are {ratio:.3g} times as wide as high; accepted is up to "
                f"{_LONGEST_PIXEL} times, and as little as 1/{_LONGEST_PIXEL}"
            )
        return ratio


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else bytes(data)


def _rgb(frame: av.VideoFrame, width: int, height: int) -> UInt8[np.ndarray, "H W 3"]:
    if any(component.is_alpha for component in frame.format.components):
        picture = frame.to_ndarray(format="rgba")
        if picture[..., 3].min() < 255:
            frame = av.VideoFrame.from_ndarray(on_black(picture), format="rgb24")
    scaled = frame.reformat(width, height, format="rgb24", interpolation="BICUBIC")
    return scaled.to_ndarray()


def _words(shape: tuple[int, int]) -> str:
    return f"{shape[1]} × {shape[0]}"
