"""Decodes a video file to RGB frames at a given shorter side.

T = frames, H = height, W = width
"""

import pathlib
from collections.abc import Callable
from typing import Any

import av
import numpy as np
from jaxtyping import Int, UInt8

from jaxmoe.data.decoding.file_end import FileEnd, file_end
from jaxmoe.data.decoding.film_picture import FilmPictures, UnreadableVideoError
from jaxmoe.data.decoding.film_stream import choose_stream
from jaxmoe.data.decoding.film_times import frame_times

__all__ = ["UnreadableVideoError", "decode_frames", "decode_video"]

# Without a proof that a file is cut off, this share of what its header promises is enough.
_LEAST_SHARE = 0.75
# Formats whose header says how long they are; of others FFmpeg measures what is there.
_PROMISING = ("mov", "matroska", "avi", "flv", "asf", "mxf", "rm", "ivf")
_STILL_BRANDS = ("heic", "heix", "mif1", "avif")  # photos in the boxes of an MP4


def decode_video(file: pathlib.Path, resolution: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Returns every frame of the film in a file; see `decode_frames`.

    Returns:
      Frames `uint8[T, H, W, 3]` in 0–255 with `T >= 1` and `min(H, W) == resolution`.
    """
    pixels = bytearray()  # it grows in place, so that no frame is held twice
    shape: tuple[int, ...] = ()

    def keep(frame: np.ndarray) -> None:
        nonlocal shape
        shape = frame.shape
        pixels.extend(np.ascontiguousarray(frame).data)

    decode_frames(file, resolution, keep)
    return np.frombuffer(pixels, np.uint8).reshape(-1, *shape)


def decode_frames(
    file: pathlib.Path, resolution: int, take: Callable[[UInt8[np.ndarray, "H W 3"]], Any]
) -> Int[np.ndarray, " T+1"] | None:
    """Hands every frame of the film in a file to `take`, one after the other, as a player shows it.

    Frames are upright and have square pixels, and are resized with an antialiasing (bicubic) filter
    so that the shorter side is `resolution`; the aspect ratio stays. Frames before an edit list
    are not shown. Interlaced frames are whole, both fields woven.

    Args:
      file: any video that FFmpeg opens.
      resolution: length of the shorter side in pixels, at least 1.
      take: is called with each frame, all of one shape.

    Returns:
      When each frame begins and when the last ends, in microseconds; None if at a constant rate.

    Raises:
      UnreadableVideoError: no such file, an empty file, no film in it, a still image, an error of
        the decoder anywhere in the file, a file that is cut off, or pictures that `FilmPictures`
        refuses.
    """
    if not file.is_file():
        raise UnreadableVideoError("no such file")
    if file.stat().st_size == 0:
        raise UnreadableVideoError("the file is empty")
    # FFmpeg writes its complaints on stderr itself; what matters arrives as an exception.
    av.logging.set_level(av.logging.PANIC)
    end = file_end(file)
    try:
        with av.open(str(file)) as container:
            return _Film(container, resolution).decode(take, end)
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        cut = "cut off, and " if end is FileEnd.EARLY else ""
        raise UnreadableVideoError(f"{cut}cannot be decoded: {_one_line(error)}") from error


class _Film:
    """The film of an open file, and how far it was decoded."""

    def __init__(self, container: Any, resolution: int):
        _refuse_stills(container)
        self._container = container
        self._stream = choose_stream(container)
        self._stream.thread_type = "AUTO"
        self._pictures = FilmPictures(self._stream, resolution)
        # Read now: decoding may change it.
        self._promise, self._of_stream = self._promised_seconds()
        self._stamps: list[int | None] = []
        self._last = 0  # how long the last frame is shown
        self._ends: dict[int, float] = {}  # of each stream, in seconds
        self._damaged = False  # the last packet of the film, or its frame

    def decode(
        self, take: Callable[[np.ndarray], Any], end: FileEnd
    ) -> Int[np.ndarray, " T+1"] | None:
        """Decodes all of it; see `decode_frames`."""
        for packet in self._container.demux():
            self._note_end(packet)
            if packet.stream.index != self._stream.index:
                continue
            if packet.size:
                self._damaged = packet.is_corrupt
            for frame in packet.decode():
                take(self._pictures(frame))
                self._stamps.append(frame.pts)
                self._last = frame.duration or 0
                self._damaged |= frame.is_corrupt
        if not self._stamps:
            cut = "cut off: " if end is FileEnd.EARLY else ""
            raise UnreadableVideoError(f"{cut}no frame can be decoded")
        if end is not FileEnd.WHOLE:
            self._refuse_cut(proved=end is FileEnd.EARLY or self._damaged)
        if len(self._stamps) == 1:
            self._refuse_one_picture()
        jumps = self._container.format.name.startswith("mpeg")
        return frame_times(self._stamps, self._stream.time_base, self._last, jumps)

    def _note_end(self, packet: Any) -> None:
        stamp = packet.dts if packet.pts is None else packet.pts
        # Packets before an edit list are decoded, but not shown; a torn one is none.
        if stamp is None or not packet.size or packet.is_discard or packet.is_corrupt:
            return
        index = packet.stream.index
        seconds = float((stamp + (packet.duration or 0)) * packet.time_base)
        self._ends[index] = max(self._ends.get(index, 0.0), seconds)

    def _promised_seconds(self) -> tuple[float, bool]:
        """Length by the header, 0 where it does not say; whether it is the stream's own."""
        stream, container = self._stream, self._container
        if not container.format.name.startswith(_PROMISING):
            return 0.0, False
        if container.format.name == "avi":
            # Without its index FFmpeg guesses the duration. The header counts moments, those of
            # dropped frames too; each takes 8 bytes, but in a recording that was never closed.
            if stream.average_rate and 8 * stream.frames < container.size:
                return float(stream.frames / stream.average_rate), True
            return 0.0, False
        if container.format.name.startswith("mov") and not stream.frames:
            return 0.0, False  # fragments, of which FFmpeg measures those that are there
        if stream.duration:
            return float(stream.duration * stream.time_base), True
        return (container.duration or 0) / av.time_base, False

    def _refuse_one_picture(self) -> None:
        if self._container.format.name in ("gif", "apng"):
            raise UnreadableVideoError("a still image, not a video")
        if self._container.streams.audio:
            raise UnreadableVideoError("no video, only one picture beside sound")

    def _refuse_cut(self, proved: bool) -> None:
        frames, promise = len(self._stamps), self._promise
        if not promise:
            if proved:
                raise UnreadableVideoError(f"cut off: the file ends within a frame, after {frames}")
            return
        own = self._ends.get(self._stream.index, 0.0)
        shown = own if self._of_stream else max(self._ends.values(), default=0.0)
        # With a proof, a header is taken at its word, to a frame: some count one more.
        slack = 1 + 1.5 / frames if proved else 1 / _LEAST_SHARE
        if shown * slack < promise:
            raise UnreadableVideoError(
                f"cut off: {shown:.2f} of {promise:.2f} seconds can be decoded"
            )


def _refuse_stills(container: Any) -> None:
    name = container.format.name
    if name == "webp_pipe" and _is_animated(pathlib.Path(container.name)):
        raise UnreadableVideoError("an animated WebP, which FFmpeg cannot decode; convert it")
    brand = container.metadata.get("major_brand", "")
    if name.startswith("image2") or name.endswith("_pipe") or brand.startswith(_STILL_BRANDS):
        raise UnreadableVideoError("a still image, not a video")
    if name == "tty":  # FFmpeg would film the letters
        raise UnreadableVideoError("text, not a video")


def _is_animated(webp: pathlib.Path) -> bool:
    with webp.open("rb") as stream:
        start = stream.read(21)
    return start[12:16] == b"VP8X" and bool(start[20:] and start[20] & 2)


def _one_line(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or repr(error)).split())
