"""Renders images of textured shapes on textured ground: the embedded images and scenes.

What a shape is, is told by its outline alone: place, size, angle, colours and textures are drawn
from one distribution for all shapes.

N = images, O = shapes in an image, S = height = width
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

SHAPES = (
    *("disc", "ring", "square", "triangle", "plus"),
    *("bar", "star", "half_disc", "crescent", "corner"),
)
GROUND = 0  # in a label map; shape number s is s + 1

# Shares of the image's side: alone, a shape is large; among others it leaves them room.
_RADIUS = {"alone": (0.26, 0.42), "among others": (0.16, 0.30)}
_DRAWS = 24  # uniform numbers that one shape, or the ground, needs at most


def render_shapes(
    shapes: Int[np.ndarray, "N O"], keys: Sequence[Sequence[int]], size: int
) -> tuple[UInt8[np.ndarray, "N S S 3"], UInt8[np.ndarray, "N S S"]]:
    """Renders images, later shapes over earlier ones; a function of (key, shapes, size) alone.

    Args:
      shapes: class numbers, places in `SHAPES`; −1 paints nothing.
      keys: N sequences of non-negative integers; each seeds one image.
      size: height and width in pixels, at least 8.

    Returns:
      RGB images in 0–255, and label maps: `GROUND`, or a shape's number + 1.

    Raises:
      ValueError: too few pixels.
    """
    if size < 8:
        raise ValueError(f"data.height: {size}; rendered images need at least 8 pixels")
    images = np.empty((len(shapes), size, size, 3), np.uint8)
    maps = np.zeros((len(shapes), size, size), np.uint8)
    kind = "alone" if shapes.shape[1] == 1 else "among others"
    for i, (row, key) in enumerate(zip(shapes, keys, strict=True)):
        uniform = np.random.default_rng(list(key)).random((1 + len(row), _DRAWS))
        image = _ground(uniform[0], size)
        for shape, drawn in zip(row, uniform[1:], strict=True):
            if shape >= 0:
                cover, texture = _shape(SHAPES[shape], drawn, size, _RADIUS[kind])
                image += (texture - image) * cover[..., None]
                maps[i][cover > 0.5] = shape + 1
        images[i] = np.rint(image)
    return images, maps


def _ground(drawn: np.ndarray, size: int) -> Float[np.ndarray, "S S 3"]:
    across, down = _grid(size)
    waves = sum(
        np.sin(2 * np.pi * (round(6 * a - 3) * across + round(6 * b - 3) * down + c))
        for a, b, c in drawn[:6].reshape(2, 3)
    )
    # Darker than any shape: the two are always told apart, by any class alike.
    return _blend(0.5 + waves / 4, 110 * drawn[6:9], 110 * drawn[9:12])


def _shape(
    name: str, drawn: np.ndarray, size: int, radii: tuple[float, float]
) -> tuple[Float[np.ndarray, "S S"], Float[np.ndarray, "S S 3"]]:
    """How much of each pixel the shape covers, and its colours."""
    radius = radii[0] + (radii[1] - radii[0]) * drawn[0]
    # Its centre lies where the whole of it is in the image, or most among others.
    low = radius if radii == _RADIUS["alone"] else radius / 2
    x, y = low + (1 - 2 * low) * drawn[1:3]
    across, down = _grid(size)
    angle = 2 * np.pi * drawn[3]
    u = (np.cos(angle) * (across - x) + np.sin(angle) * (down - y)) / radius
    v = (np.cos(angle) * (down - y) - np.sin(angle) * (across - x)) / radius
    edge = np.clip(_inside(name, u, v) * radius * size + 0.5, 0, 1)  # one pixel wide
    turn, phase = 2 * np.pi * drawn[4:6]
    waves = np.sin(4 * (np.cos(turn) * u + np.sin(turn) * v) + phase)
    colours = _blend(0.5 + waves / 2, 150 + 105 * drawn[6:9], 100 + 100 * drawn[9:12])
    return edge, colours


def _inside(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Above 0 inside the outline, about the distance from it; radius 1."""
    r = np.hypot(u, v)

    def box(x, y, half_width, half_height):
        return np.minimum(half_width - np.abs(u - x), half_height - np.abs(v - y))

    match name:
        case "disc":
            return 0.85 - r
        case "ring":
            return 0.22 - np.abs(r - 0.75)
        case "square":
            return box(0, 0, 0.75, 0.75)
        case "triangle":
            sides = [np.cos(a) * u + np.sin(a) * v for a in np.pi * np.array([1 / 6, 5 / 6, 1.5])]
            return 0.5 - np.maximum.reduce(sides)
        case "plus":
            return np.maximum(box(0, 0, 0.95, 0.28), box(0, 0, 0.28, 0.95))
        case "bar":
            return box(0, 0, 1.0, 0.3)
        case "star":
            return 0.62 + 0.33 * np.cos(5 * np.arctan2(v, u)) - r
        case "half_disc":
            return np.minimum(0.95 - r, v + 0.2)
        case "crescent":
            return np.minimum(0.95 - r, np.hypot(u - 0.55, v) - 0.75)
        case "corner":
            return np.maximum(box(-0.5, 0, 0.27, 0.85), box(0, 0.58, 0.77, 0.27))
    raise ValueError(f"shape {name!r} is not one of {', '.join(SHAPES)}")


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = (np.arange(size) + 0.5) / size
    return pixels[None, :], pixels[:, None]


def _blend(share: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first + (second - first) * share[..., None]
