"""TFDS builders of datasets that are video files: `VideoFolder`, `UCF101`, `HMDB51`."""

import collections
import concurrent.futures
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from jaxmoe.data.class_folders import list_class_folders
from jaxmoe.data.clip_builder import ClipBuilder, PlannedClip, Progress, UnusableClipError
from jaxmoe.data.decode import UnreadableVideoError, decode_video
from jaxmoe.data.listing import ListedVideo, Listing, require_directory
from jaxmoe.data.manifest import read_manifest
from jaxmoe.data.official_splits import list_hmdb51, list_ucf101
from jaxmoe.data.prepare import cache_folder, fingerprint


class _Videos(ClipBuilder, skip_registration=True):
    """Decodes the videos of a listing at one resolution; unreadable ones are recorded."""

    def __init__(
        self,
        listing: Listing,
        *,
        resolution: int,
        cache: str | os.PathLike | None,
        progress: Progress | None,
    ):
        if resolution < 1:
            raise ValueError(f"data.resolution: {resolution}; it is a number of pixels, at least 1")
        self._resolution = resolution
        plan: dict[str, list[PlannedClip]] = {split: [] for split in listing.splits}
        for index, video in enumerate(listing.videos):
            label = listing.classes.index(video.label)
            plan[video.split].append(PlannedClip(index, video.path, label, video.file))
        super().__init__(
            plan=plan,
            classes=listing.classes,
            codec="jpeg",
            fingerprint=fingerprint(
                builder=self.name,
                version=str(self.VERSION),
                resolution=resolution,
                classes=listing.classes,
                videos=[_identity(video) for video in listing.videos],
            ),
            data_dir=cache_folder(cache),
            progress=progress,
        )

    def render(self, clips: list[PlannedClip]) -> Iterator[np.ndarray | UnusableClipError]:
        """Decodes the clips' files in order, a few at a time in threads."""
        threads = os.cpu_count() or 1
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            try:
                for clip in clips:
                    waiting.append(pool.submit(self._decode, clip.source))
                    # One result waits per busy thread: memory does not grow with the dataset.
                    if len(waiting) > 2 * threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _decode(self, file: pathlib.Path) -> np.ndarray | UnusableClipError:
        try:
            return decode_video(file, self._resolution)
        except (UnreadableVideoError, OSError) as error:
            return UnusableClipError(str(error))


class VideoFolder(_Videos, skip_registration=True):
    """Videos in class folders, or listed by a manifest with the columns `path,label,split`.

    Without `manifest`, `directory/manifest.csv` is read if it is there, else the class folders.

    Args of the constructor: `directory`, the folder with the videos; `manifest`, another CSV file
    (relative to the working directory, else to `directory`); `resolution`, the shorter side of the
    stored frames in pixels; `cache`, the folder for prepared data; `progress(done, total)`.
    Raises `ValueError` or `FileNotFoundError` with one line that names the field.
    """

    name = "video_folder"

    def __init__(
        self,
        *,
        directory: str | os.PathLike,
        manifest: str | os.PathLike | None = None,
        resolution: int,
        cache: str | os.PathLike | None = None,
        progress: Progress | None = None,
    ):
        root = require_directory(directory)
        if manifest:
            chosen = pathlib.Path(manifest).expanduser()
            beside = root / chosen
            file = beside if not chosen.is_file() and beside.is_file() else chosen
            listing = read_manifest(file, root)
        elif (root / "manifest.csv").is_file():
            listing = read_manifest(root / "manifest.csv", root)
        else:
            listing = list_class_folders(root)
        super().__init__(listing, resolution=resolution, cache=cache, progress=progress)


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
    `resolution`, `cache`, `progress` as in `VideoFolder`. Raises `ValueError` or
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


def _identity(video: ListedVideo) -> list:
    """What tells one version of a file from another without reading it."""
    try:
        status = video.file.stat()
    except OSError:
        return [video.path, video.label, video.split, None, None]
    return [video.path, video.label, video.split, status.st_size, status.st_mtime_ns]
