"""The stored size and the ground of every decoded picture, still or of a film.

H = height, W = width
"""

import numpy as np
from jaxtyping import UInt8


def stored_size(width: float, height: float, shorter: int) -> tuple[int, int]:
    """Returns the width and height of a picture whose shorter side becomes `shorter` pixels.

    Args:
      width: of the picture as it is shown, in units of any size.
      height: in the same units.
      shorter: pixels, at least 1.
    """
    scale = shorter / min(width, height)
    return max(shorter, round(width * scale)), max(shorter, round(height * scale))


def on_black(picture: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """Returns an RGBA picture laid on black: colour under transparency does not show.

    Args:
      picture: in 0–255; alpha is not premultiplied.
    """
    alpha = picture[..., 3:].astype(np.uint16)
    return ((picture[..., :3] * alpha + 127) // 255).astype(np.uint8)
