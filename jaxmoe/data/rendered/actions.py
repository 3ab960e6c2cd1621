"""Renders short clips whose class is a motion and nothing else: the data of `synthetic_actions`.

A textured blob moves over a textured background that drifts in a direction of its own. Everything
that a frame shows (place, size, angle, colours, textures, the background) is drawn from one
distribution for all classes and all frames: places wrap around at the border, size runs through a
cycle, and where in the cycle a clip starts is uniform. So one frame alone, the first, the last or
any other, carries no information on the class.

N = clips, T = frames, S = height = width
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

CLASSES = (
    "moves_left",
    "moves_right",
    "moves_up",
    "moves_down",
    "rotates_clockwise",
    "rotates_counterclockwise",
    "grows",
    "shrinks",
    "oscillates_horizontally",
    "oscillates_vertically",
)

# Shares of the frame's side: at 32 pixels the blob's radius is 4.5 to 9 pixels.
_SMALLEST_RADIUS = 0.14
_LARGEST_RADIUS = 0.28
# Per frame, as shares of the side: 1.5 to 3 pixels at 32.
_SPEED = (1.5 / 32, 3.0 / 32)
_BACKGROUND_SPEED = 1.0 / 32
_TURN = (0.3, 0.5)  # radians per frame
_SWING = (3.5 / 32, 5.0 / 32)  # amplitude of an oscillation
_SWING_PERIOD = (6.0, 9.0)  # frames
_GROWTH_PERIOD = (8.0, 12.0)  # frames from the smallest radius to the largest
_BACKGROUND_WAVES = 2
_CLIPS_AT_ONCE = 32  # keeps the work arrays in the processor's cache and memory small


def render_actions(
    labels: Int[np.ndarray, " N"], keys: Sequence[Sequence[int]], frames: int, size: int
) -> UInt8[np.ndarray, "N T S S 3"]:
    """Renders one clip per label, a function of (key, label, frames, size) alone.

    Args:
      labels: class numbers `int[N]`, places in `CLASSES`.
      keys: N sequences of non-negative integers; each seeds one clip.
      frames: frames per clip, at least 1.
      size: height and width in pixels, at least 8.

    Returns:
      RGB clips `uint8[N, frames, size, size, 3]`, 0–255.

    Raises:
      ValueError: too few frames or pixels.
    """
    if frames < 1:
        raise ValueError(f"data.frames: {frames}; it is a number of frames, at least 1")
    if size < 8:
        raise ValueError(f"data.resolution: {size}; synthetic_actions needs at least 8 pixels")
    clips = np.empty((len(labels), frames, size, size, 3), np.uint8)
    for start in range(0, len(labels), _CLIPS_AT_ONCE):
        part = slice(start, start + _CLIPS_AT_ONCE)
        clips[part] = _render(_draw(labels[part], keys[part], frames), size)
    return clips


@dataclasses.dataclass(frozen=True)
class _Scene:
    """The scenes of a batch of clips; lengths are shares of the frame's side, angles radians."""

    x: Float[np.ndarray, "N T"]
    y: Float[np.ndarray, "N T"]
    angle: Float[np.ndarray, "N T"]
    radius: Float[np.ndarray, "N T"]
    lobes: Float[np.ndarray, " N"]  # how far the outline departs from a circle
    wave: Float[np.ndarray, "N 2"]  # phase and angle of the blob's texture
    blob_colors: Float[np.ndarray, "N 2 3"]
    background: Float[np.ndarray, "N T W"]  # phases of the background's waves
    background_waves: Float[np.ndarray, "N W 2"]  # whole waves per side: the background wraps
    background_colors: Float[np.ndarray, "N 2 3"]


_DRAWS = 40  # uniform numbers that one clip needs at most


def _draw(labels: np.ndarray, keys: Sequence[Sequence[int]], frames: int) -> _Scene:
    uniform = np.stack([np.random.default_rng(list(key)).random(_DRAWS) for key in keys])
    column = iter(range(_DRAWS))

    def draw(low: float, high: float) -> np.ndarray:
        return low + (high - low) * uniform[:, next(column), None]

    def colors(low: float, high: float) -> np.ndarray:
        return np.concatenate([draw(low, high) for _ in range(3)], axis=1)

    def moving(*names: str) -> np.ndarray:
        return np.isin(labels, [CLASSES.index(name) for name in names])[:, None]

    time = np.arange(frames)[None]
    x, y = draw(0, 1), draw(0, 1)
    speed = draw(*_SPEED) * time
    x = x + speed * (moving("moves_right") * 1.0 - moving("moves_left"))
    y = y + speed * (moving("moves_down") * 1.0 - moving("moves_up"))
    swing = draw(*_SWING) * np.sin(2 * np.pi * (draw(0, 1) + time / draw(*_SWING_PERIOD)))
    x = x + swing * moving("oscillates_horizontally")
    y = y + swing * moving("oscillates_vertically")
    # The image's y axis points down, so a growing angle turns clockwise on the screen.
    clockwise = moving("rotates_clockwise") * 1.0 - moving("rotates_counterclockwise")
    angle = draw(0, 2 * np.pi) + draw(*_TURN) * time * clockwise
    growth = time / draw(*_GROWTH_PERIOD) * (moving("grows") * 1.0 - moving("shrinks"))
    cycle = (draw(0, 1) + growth) % 1.0
    radius = _SMALLEST_RADIUS * (_LARGEST_RADIUS / _SMALLEST_RADIUS) ** cycle
    drift, heading = draw(0, _BACKGROUND_SPEED), draw(0, 2 * np.pi)
    waves = np.concatenate([np.round(draw(-3, 3)) for _ in range(2 * _BACKGROUND_WAVES)], axis=1)
    waves = waves.reshape(-1, _BACKGROUND_WAVES, 2)
    heading = np.concatenate([np.cos(heading), np.sin(heading)], axis=1)
    phases = np.concatenate([draw(0, 1) for _ in range(_BACKGROUND_WAVES)], axis=1)
    travelled = np.einsum("nwc,nc->nw", waves, heading)
    # Bright blob on a darker ground: the two are always told apart, by any class alike.
    return _Scene(
        x=x % 1.0,
        y=y % 1.0,
        angle=angle,
        radius=radius,
        lobes=draw(0.1, 0.3)[:, 0],
        wave=np.concatenate([draw(0, 2 * np.pi), draw(0, 2 * np.pi)], axis=1),
        blob_colors=np.stack([colors(170, 255), colors(60, 170)], axis=1),
        background=phases[:, None] - travelled[:, None] * (drift * time)[:, :, None],
        background_waves=waves,
        background_colors=np.stack([colors(0, 70), colors(30, 110)], axis=1),
    )


def _render(scene: _Scene, size: int) -> UInt8[np.ndarray, "N T S S 3"]:
    pixels = ((np.arange(size) + 0.5) / size).astype(np.float32)
    image = _background(scene, pixels)

    def wide(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, :, None, None]

    # The blob's own coordinates: nearest copy on the torus, turned, in units of its radius.
    across = (pixels - wide(scene.x) + 0.5) % 1.0 - 0.5
    down = (pixels[:, None] - wide(scene.y) + 0.5) % 1.0 - 0.5
    cos, sin = wide(np.cos(scene.angle) / scene.radius), wide(np.sin(scene.angle) / scene.radius)
    u = cos * across + sin * down
    v = cos * down - sin * across
    distance = np.sqrt(u * u + v * v) + np.float32(1e-6)
    # cos(3θ) as a polynomial: three lobes, and no arctangent per pixel.
    three = (u * u * u - 3 * u * v * v) / (distance * distance * distance)
    outline = 1 + scene.lobes.astype(np.float32)[:, None, None, None] * three
    # One pixel wide edge.
    inside = np.clip((outline - distance) * wide(scene.radius * size) + 0.5, 0, 1)
    phase, turn = (scene.wave[:, i].astype(np.float32)[:, None, None, None] for i in (0, 1))
    texture = 0.5 + 0.5 * np.sin(3 * (np.cos(turn) * u + np.sin(turn) * v) + phase)
    first, second = (
        scene.blob_colors[:, i].astype(np.float32)[:, None, None, None] for i in (0, 1)
    )
    blob = first + (second - first) * texture[..., None]
    image += (blob - image) * inside[..., None]
    return np.rint(image).astype(np.uint8)


def _background(scene: _Scene, pixels: np.ndarray) -> Float[np.ndarray, "N T S S 3"]:
    total = np.float32(0)
    for wave in range(scene.background_waves.shape[1]):
        along, down = (
            scene.background_waves[:, wave, i].astype(np.float32)[:, None, None, None]
            for i in (0, 1)
        )
        phase = scene.background[:, :, wave].astype(np.float32)[:, :, None, None]
        total = total + np.sin(
            np.float32(2 * np.pi) * (along * pixels + down * pixels[:, None] + phase)
        )
    share = 0.5 + total / np.float32(2 * scene.background_waves.shape[1])
    first, second = (
        scene.background_colors[:, i].astype(np.float32)[:, None, None, None] for i in (0, 1)
    )
    return first + (second - first) * share[..., None]
