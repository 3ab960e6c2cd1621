"""When each frame of a film is shown; nothing where they follow one another evenly.

T = frames
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int

MICROSECONDS = 1_000_000
# A clock that jumps on by more than this was set anew, as where recordings are joined.
_LONGEST_WAIT = 10


def frame_times(
    stamps: Sequence[int | None], unit: Fraction, last: int, jumps: bool
) -> Int[np.ndarray, " T+1"] | None:
    """Returns when each frame begins and when the last one ends; None where the rate is constant.

    The rate is constant if no frame begins more than a frame's time from where it would: neither
    the rounding of time stamps nor a single lost frame makes it another. Time stamps that are
    missing or out of order say nothing, as those of AVI with B-frames: the frames are taken to
    follow evenly.

    Args:
      stamps: time stamps in the order of the frames.
      unit: seconds of a time stamp's unit.
      last: how long the last frame is shown, in the same unit; 0 is unknown.
      jumps: whether the container is one whose clock may be set anew in a file.

    Returns:
      Microseconds from the beginning of the first frame, non-decreasing; or None.
    """
    if len(stamps) < 2 or None in stamps:
        return None
    waits = np.diff(np.array(stamps, np.float64))
    if jumps:
        joined = (waits < 0) | (waits * float(unit) > _LONGEST_WAIT)
        waits = np.where(joined, np.median(waits), waits)
    mean = waits.mean()
    if (waits < 0).any() or not mean:
        return None
    begins = np.concatenate([[0.0], np.cumsum(waits)])
    even = np.abs(begins - mean * np.arange(len(begins))).max() <= mean
    last = last if last > 0 else mean
    if even and last <= 1.5 * mean:
        return None
    return np.rint(np.append(begins, begins[-1] + last) * float(unit) * MICROSECONDS).astype(int)
