"""Chooses the stream of a file that is its film."""

import collections
from typing import Any

import av
from av.stream import Disposition

from jaxmoe.data.decoding.film_picture import UnreadableVideoError

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def choose_stream(container: Any) -> Any:
    """Returns the video stream that holds the film.

    Attached pictures and thumbnails are none. Of several streams, those with less than half as
    many frames as the longest are left aside; of the rest the one that the file marks as default
    is taken, else the one of most pixels, else the first.

    Args:
      container: an open `av` input of a file; its position is not moved.

    Raises:
      UnreadableVideoError: there is none.
    """
    streams = container.streams.video
    if not streams:
        raise UnreadableVideoError("no video stream")
    films = [stream for stream in streams if not stream.disposition & _PICTURES]
    if not films:
        raise UnreadableVideoError("no video stream, only an attached picture")
    known = [stream for stream in films if stream.codec_context is not None]
    if not known:
        raise UnreadableVideoError("no decoder here for its video")
    if len(known) == 1:
        return known[0]
    frames = _frames(container.name)
    most = max(frames[stream.index] for stream in known)
    return max(
        (stream for stream in known if 2 * frames[stream.index] >= most),
        key=lambda stream: (
            bool(stream.disposition & Disposition.default),
            stream.codec_context.width * stream.codec_context.height,
        ),
    )


def _frames(file: str) -> collections.Counter[int]:
    """Packets of each stream; a header's counts may be wrong or missing."""
    counts: collections.Counter[int] = collections.Counter()
    with av.open(file) as container:
        try:
            for packet in container.demux(*container.streams.video):
                counts[packet.stream.index] += bool(packet.size)
        except av.error.FFmpegError:  # decoding comes to it too, and says so
            pass
    return counts
