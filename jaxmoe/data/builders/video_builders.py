"""TFDS builders of datasets that are video files: `VideoFolder`, `UCF101`, `HMDB51`."""

import os
import pathlib
from collections.abc import Callable

import numpy as np

from jaxmoe.data.builders.clip_builder import EncodedClip, Progress
from jaxmoe.data.builders.listed_builder import FolderBuilder, ListedBuilder
from jaxmoe.data.decoding.decode import UnreadableVideoError, decode_frames
from jaxmoe.data.decoding.frame_codec import encode_frame
from jaxmoe.data.decoding.unusable import UnusableClipError
from jaxmoe.data.listing.listing import Listing, require_directory
from jaxmoe.data.listing.official_splits import list_hmdb51, list_ucf101


class _Videos(ListedBuilder, skip_registration=True):
    CODEC = "jpeg"
    TIMED = True

    def read_file(self, file: pathlib.Path, resolution: int) -> EncodedClip:
        """Decodes every frame, and encodes it before the next one."""
        frames: list[bytes] = []
        shape: tuple[int, ...] = ()

        def keep(frame: np.ndarray) -> None:
            nonlocal shape
            shape = frame.shape[:2]
            frames.append(encode_frame(frame, self.CODEC))

        try:
            times = decode_frames(file, resolution, keep)
        except UnreadableVideoError as error:
            raise UnusableClipError(str(error)) from error
        return EncodedClip(frames, *shape, times)


class VideoFolder(_Videos, FolderBuilder, skip_registration=True):
    """Videos in class folders, or listed by a manifest; see `FolderBuilder`."""

    name = "video_folder"


class _OfficialSplit(_Videos, skip_registration=True):
    """A data set whose archives name the clips of splits 1, 2 and 3."""

    list_videos: Callable[[pathlib.Path, int], Listing]

    def __init__(
        self,
        *,
        directory: str | os.PathLike,
        split: int,
        resolution: int,
        cache: str | os.PathLike | None = None,
        progress: Progress | None = None,
    ):
        listing = self.list_videos(require_directory(directory), split)
        super().__init__(listing, resolution=resolution, cache=cache, progress=progress)


class UCF101(_OfficialSplit, skip_registration=True):
    """UCF-101 from locally extracted archives, with official split 1, 2 or 3.

    Args of the constructor: `directory`, what the archives were extracted to; `split`;
    `resolution`, `cache`, `progress` as in `FolderBuilder`. Raises `ValueError` or
    `FileNotFoundError` with one line that names the field.
    """

    name = "ucf101"
    list_videos = staticmethod(list_ucf101)


class HMDB51(_OfficialSplit, skip_registration=True):
    """HMDB-51 from locally extracted archives, with official split 1, 2 or 3.

    Args of the constructor and errors as in `UCF101`.
    """

    name = "hmdb51"
    list_videos = staticmethod(list_hmdb51)
