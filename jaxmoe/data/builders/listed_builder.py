"""`ListedBuilder`: a TFDS builder of files that a listing names, videos or images."""

import collections
import concurrent.futures
import errno
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from jaxmoe.data.builders.clip_builder import (
    ClipBuilder,
    Dense,
    EncodedClip,
    PlannedClip,
    Progress,
)
from jaxmoe.data.builders.prepare import cache_folder, fingerprint
from jaxmoe.data.decoding.unusable import UnusableClipError
from jaxmoe.data.listing.class_folders import list_class_folders
from jaxmoe.data.listing.listing import ListedFile, Listing, require_directory
from jaxmoe.data.listing.manifest import read_manifest
from jaxmoe.files import expand_home

# A moment later the same file may be read.
_PASSES = (errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT)


class ListedBuilder(ClipBuilder, skip_registration=True):
    """Decodes the files of a listing at one resolution; unreadable ones are recorded.

    A subclass says how a file is read (`read_file`, or `read` where it has a label map) and how
    frames are stored (`CODEC`). A `table` is what else the records depend on.
    """

    CODEC: str

    def __init__(
        self,
        listing: Listing,
        *,
        resolution: int,
        cache: str | os.PathLike | None,
        progress: Progress | None,
        table: list | None = None,
    ):
        if resolution < 1:
            raise ValueError(f"data.resolution: {resolution}; it is a number of pixels, at least 1")
        self.resolution = resolution
        plan: dict[str, list[PlannedClip]] = {split: [] for split in listing.splits}
        for index, file in enumerate(listing.files):
            label = -1 if file.label_map else listing.classes.index(file.label)
            plan[file.split].append(PlannedClip(index, file.path, label, file))
        super().__init__(
            plan=plan,
            classes=listing.classes,
            codec=self.CODEC,
            fingerprint=fingerprint(
                builder=self.name,
                version=str(self.VERSION),
                resolution=resolution,
                classes=listing.classes,
                files=[_identity(file) for file in listing.files],
                **({} if table is None else {"table": table}),
            ),
            data_dir=cache_folder(cache),
            progress=progress,
            columns={file.path: file.columns for file in listing.files},
        )

    def read_file(self, file: pathlib.Path, resolution: int) -> np.ndarray | EncodedClip:
        """Returns the frames `uint8[T, H, W, 3]` of a file, the shorter side `resolution`.

        Raises:
          UnusableClipError, OSError: why there are none, in one line.
        """
        raise NotImplementedError

    def read(self, listed: ListedFile) -> np.ndarray | EncodedClip | Dense:
        """Returns what is stored of a listed file; raises as `read_file`."""
        return self.read_file(listed.file, self.resolution)

    def render(
        self, clips: list[PlannedClip]
    ) -> Iterator[np.ndarray | EncodedClip | Dense | UnusableClipError]:
        """Decodes the clips' files in order, a few at a time in threads."""
        threads = os.cpu_count() or 1
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            try:
                for clip in clips:
                    waiting.append(pool.submit(self._read, clip.source))
                    # Films are large: no more of them than threads are read or wait to be stored.
                    if len(waiting) >= threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _read(self, listed: ListedFile) -> np.ndarray | EncodedClip | Dense | UnusableClipError:
        try:
            return self.read(listed)
        except (UnusableClipError, OSError) as error:
            _raise_if_it_passes(error, listed.file)
            return error if isinstance(error, UnusableClipError) else UnusableClipError(str(error))


class FolderBuilder(ListedBuilder, skip_registration=True):
    """Files in class folders, or listed by a manifest with the columns `path,label,split`.

    Without `manifest`, `directory/manifest.csv` is read if it is there, else the class folders.

    Args of the constructor: `directory`, the folder with the files; `manifest`, another CSV file
    (relative to the working directory, else to `directory`); `resolution`, the shorter side of the
    stored frames in pixels; `cache`, the folder for prepared data; `progress(done, total)`;
    `trains`, whether there must be files to train on.
    Raises `ValueError` or `FileNotFoundError` with one line that names the field.
    """

    def __init__(
        self,
        *,
        directory: str | os.PathLike,
        manifest: str | os.PathLike | None = None,
        resolution: int,
        cache: str | os.PathLike | None = None,
        progress: Progress | None = None,
        trains: bool = True,
    ):
        listing = list_folder(directory, manifest, trains=trains)
        super().__init__(listing, resolution=resolution, cache=cache, progress=progress)


def list_folder(
    directory: str | os.PathLike, manifest: str | os.PathLike | None, *, trains: bool = True
) -> Listing:
    """Lists the files of a folder: by `manifest`, else by its `manifest.csv`, else by its classes.

    Args:
      directory: the folder with the files.
      manifest: a CSV file, relative to the working directory, else to `directory`; or None.
      trains: whether there must be files to train on.

    Raises:
      ValueError, FileNotFoundError: one line that names the field.
    """
    root = require_directory(directory)
    found = find_manifest(root, manifest)
    if found is None:
        return list_class_folders(root, trains=trains)
    return read_manifest(found, root, trains=trains)


def find_manifest(root: pathlib.Path, manifest: str | os.PathLike | None) -> pathlib.Path | None:
    """The manifest that is named, relative to here or else to `root`; else `root`'s, if any."""
    if manifest:
        chosen = expand_home(manifest, "data.manifest")
        beside = root / chosen
        return beside if not chosen.is_file() and beside.is_file() else chosen
    own = root / "manifest.csv"
    return own if own.is_file() else None


def _raise_if_it_passes(error: BaseException | None, file: pathlib.Path) -> None:
    """Raises what is no fault of a file: left out for it, it would be left out for good."""
    while error is not None:
        code = getattr(error, "errno", None)
        if code in _PASSES:
            raise OSError(code, os.strerror(code), str(file)) from None
        error = error.__cause__


def _identity(file: ListedFile) -> list:
    """Tells one version of a file from another without reading it."""
    identity: list = [file.path, file.label, file.split]
    for part in filter(None, (file.file, file.label_map)):
        if part is file.label_map:
            identity.append(os.path.relpath(part, file.file.parent))
        try:
            status = part.stat()
            # Leave to read it is part of neither size nor time.
            known = [status.st_size, status.st_mtime_ns] if os.access(part, os.R_OK) else None
        except OSError:
            known = None
        identity += known or [None, None]
    return identity
