"""Which frames of a video make up a clip.

Every function returns `int64[T]`, non-decreasing, in `[0, length)`. A video shorter than asked for
is padded by repeating its last frame.
"""

import numpy as np
from jaxtyping import Int


def uniform_frames(length: int, frames: int) -> Int[np.ndarray, " T"]:
    """Returns the centres of `frames` equal segments of the whole video.

    Wang et al., Temporal Segment Networks, 2016 (https://arxiv.org/abs/1608.00859).

    Args:
      length: frames of the video, at least 1.
      frames: T, frames to take.
    """
    if length < frames:
        return _padded(length, frames)
    return (np.arange(frames) * 2 + 1) * length // (2 * frames)


def random_uniform_frames(
    length: int, frames: int, rng: np.random.Generator
) -> Int[np.ndarray, " T"]:
    """Returns one random frame of each of `frames` equal segments; strictly increasing.

    Args:
      length: frames of the video, at least 1.
      frames: T, frames to take.
      rng: where the offsets come from.
    """
    if length < frames:
        return _padded(length, frames)
    edges = np.arange(frames + 1) * length // frames
    return rng.integers(edges[:-1], edges[1:])


def window_frames(length: int, frames: int, stride: int) -> Int[np.ndarray, " T"]:
    """Returns every `stride`-th frame of a window in the middle of the video.

    Args:
      length: frames of the video, at least 1.
      frames: T, frames to take.
      stride: step between them, at least 1.
    """
    return _window(length, frames, stride, _slack(length, frames, stride) // 2)


def random_window_frames(
    length: int, frames: int, stride: int, rng: np.random.Generator
) -> Int[np.ndarray, " T"]:
    """Returns every `stride`-th frame of a window that starts anywhere it fits.

    Args:
      length: frames of the video, at least 1.
      frames: T, frames to take.
      stride: step between them, at least 1.
      rng: where the start comes from.
    """
    slack = _slack(length, frames, stride)
    return _window(length, frames, stride, int(rng.integers(0, slack + 1)))


def _slack(length: int, frames: int, stride: int) -> int:
    return max(0, length - ((frames - 1) * stride + 1))


def _window(length: int, frames: int, stride: int, start: int) -> Int[np.ndarray, " T"]:
    return np.minimum(start + stride * np.arange(frames), length - 1)


def _padded(length: int, frames: int) -> Int[np.ndarray, " T"]:
    return np.minimum(np.arange(frames), length - 1)
