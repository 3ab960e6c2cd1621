"""Picks the frames of a video that make up a clip.

Every function returns `int64[T]`, non-decreasing, in `[0, length)`. A video shorter than asked for
is padded by repeating its last frame.

Frames are spread evenly in time. Where they follow one another unevenly, `times` says when each
begins, and the frame that a player shows at a moment is taken; the video then counts as one of as
many frames, all shown equally long, in which a number is a moment. None is a constant rate.
"""

import numpy as np
from jaxtyping import Int

Times = Int[np.ndarray, " length+1"]


def uniform_frames(length: int, frames: int, times: Times | None = None) -> Int[np.ndarray, " T"]:
    """Returns the centres of `frames` equal segments of the whole video.

    Wang et al., Temporal Segment Networks, 2016 (https://arxiv.org/abs/1608.00859).

    Args:
      length: frames of the video, at least 1.
      frames: T, frames to take.
      times: of the frames, `int64[length + 1]`, the end of the last one too; or None.
    """
    if length < frames:
        return _padded(length, frames)
    centres = (np.arange(frames) * 2 + 1) * length
    if times is None:
        return centres // (2 * frames)
    return _shown(centres / (2 * frames), times)


def random_uniform_frames(
    length: int, frames: int, rng: np.random.Generator, times: Times | None = None
) -> Int[np.ndarray, " T"]:
    """Returns one random frame of each of `frames` equal segments.

    Args:
      length: frames of the video, at least 1.
      frames: T, frames to take.
      rng: where the offsets come from.
      times: as in `uniform_frames`.
    """
    if length < frames:
        return _padded(length, frames)
    edges = np.arange(frames + 1) * length // frames
    chosen = rng.integers(edges[:-1], edges[1:])
    return chosen if times is None else _shown(chosen + rng.random(frames), times)


def window_frames(
    length: int, frames: int, stride: int, times: Times | None = None
) -> Int[np.ndarray, " T"]:
    """Returns every `stride`-th frame of a window in the middle of the video.

    Args:
      length: frames of the video, at least 1.
      frames: T, frames to take.
      stride: step between them, at least 1.
      times: as in `uniform_frames`; a step is then as long as a frame is on the average.
    """
    return _window(length, frames, stride, _slack(length, frames, stride) // 2, times)


def random_window_frames(
    length: int,
    frames: int,
    stride: int,
    rng: np.random.Generator,
    times: Times | None = None,
    speed_jitter: float = 0.0,
) -> Int[np.ndarray, " T"]:
    """Returns every `stride`-th frame of a window that starts anywhere it fits.

    Args:
      length: frames of the video, at least 1.
      frames: T, frames to take.
      stride: step between them, at least 1.
      rng: where the speed and the start come from.
      times: as in `window_frames`.
      speed_jitter: s in [0, 1); the stride is multiplied by a number that is uniform in
        [1 − s, 1 + s], but below what makes the window longer than the video.
    """
    step: float = stride
    if speed_jitter and frames > 1:
        fits = max(1.0, (length - 1) / ((frames - 1) * stride))
        step *= rng.uniform(1 - speed_jitter, min(1 + speed_jitter, fits))
    slack = _slack(length, frames, step)
    return _window(length, frames, step, int(rng.integers(0, slack + 1)), times)


def _slack(length: int, frames: int, stride: float) -> int:
    return max(0, length - (int((frames - 1) * stride) + 1))


def _window(
    length: int, frames: int, stride: float, start: int, times: Times | None
) -> Int[np.ndarray, " T"]:
    steps = (stride * np.arange(frames)).astype(np.int64)
    chosen = np.minimum(start + steps, length - 1)
    return chosen if times is None or length < frames else _shown(chosen + 0.5, times)


def _shown(moments: np.ndarray, times: Times) -> Int[np.ndarray, " T"]:
    """The frames shown at moments, which count in frames of equal length."""
    length = len(times) - 1
    return np.searchsorted(times[:-1], moments * (times[-1] / length), side="right") - 1


def _padded(length: int, frames: int) -> Int[np.ndarray, " T"]:
    return np.minimum(np.arange(frames), length - 1)
