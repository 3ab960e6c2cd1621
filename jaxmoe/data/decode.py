"""Decodes a video file to RGB frames at a given shorter side.

T = frames, H = height, W = width
"""

import pathlib

import av
import numpy as np
from jaxtyping import UInt8

from jaxmoe.data.picture import stored_size

# A file that yields less than this share of the frames its header promises is taken as cut off:
# headers are often off by a few frames, and some containers only estimate the count.
_LEAST_SHARE_OF_FRAMES = 0.75


class UnreadableVideoError(Exception):
    """Says in one line why a file cannot be used as a video."""


def decode_video(file: pathlib.Path, resolution: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Decodes every frame of the first video stream.

    Frames are turned upright by the rotation the file records, and resized with an antialiasing
    (bicubic) filter so that the shorter side is `resolution`; the aspect ratio stays.

    Args:
      file: any video that FFmpeg opens.
      resolution: length of the shorter side in pixels, at least 1.

    Returns:
      Frames `uint8[T, H, W, 3]` in 0–255 with `T >= 1` and `min(H, W) == resolution`.

    Raises:
      UnreadableVideoError: no such file, an empty file, no video stream, a still image, an error
        of the decoder anywhere in the file, or a file that is cut off.
    """
    if not file.is_file():
        raise UnreadableVideoError("no such file")
    if file.stat().st_size == 0:
        raise UnreadableVideoError("the file is empty")
    # FFmpeg writes its complaints on stderr itself; what matters arrives as an exception.
    av.logging.set_level(av.logging.PANIC)
    try:
        with av.open(str(file)) as container:
            frames, promised = _decode(container, resolution)
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        raise UnreadableVideoError(f"cannot be decoded: {_one_line(error)}") from error
    if not frames:
        raise UnreadableVideoError("no frame can be decoded")
    if len(frames) < _LEAST_SHARE_OF_FRAMES * promised:
        raise UnreadableVideoError(f"cut off: {len(frames)} of {promised} frames can be decoded")
    return np.stack(frames)


def _decode(container, resolution: int) -> tuple[list[np.ndarray], int]:
    if not container.streams.video:
        raise UnreadableVideoError("no video stream")
    name = container.format.name
    if name.startswith("image2") or name.endswith("_pipe"):
        raise UnreadableVideoError("a still image, not a video")
    if name == "tty":  # FFmpeg would film the letters
        raise UnreadableVideoError("text, not a video")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    frames = []
    width = height = 0
    for frame in container.decode(stream):
        if not frames:
            width, height = stored_size(frame.width, frame.height, resolution)
        scaled = frame.reformat(width, height, format="rgb24", interpolation="BICUBIC")
        quarter_turns = round(frame.rotation / 90)
        frames.append(np.rot90(scaled.to_ndarray(), quarter_turns))
    return frames, stream.frames


def _one_line(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or repr(error)).split())
