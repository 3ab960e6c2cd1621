"""The files of a prepared data set: whether all of them are there, and who may change them."""

import contextlib
import fcntl
import pathlib
import shutil
from collections.abc import Iterator

from jaxmoe.files import naming, read_json, write_json

_SIZES = "sizes.json"  # of the other files of the folder, in bytes


def record_sizes(folder: pathlib.Path) -> None:
    """Writes down how long every file of a folder is that was just prepared."""
    write_json(folder / _SIZES, _sizes(folder))


def remove_damaged(folder: pathlib.Path) -> None:
    """Removes prepared records that were copied in part, or lost a file: they are prepared anew.

    Where no sizes were recorded, nothing is known and all is left.
    """
    if _is_whole(folder):
        return
    with locked(folder):
        if not _is_whole(folder):  # or another process has prepared it meanwhile
            shutil.rmtree(folder)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Waits until no other process prepares `CACHE/NAME/FINGERPRINT/VERSION`, and keeps it."""
    file = folder.parent.parent / f"{folder.parent.name}.lock"
    with naming(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        stream = file.open("w")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _is_whole(folder: pathlib.Path) -> bool:
    """Whether every file is as long as it was when it was written, as far as that is known."""
    if not (folder / _SIZES).is_file():
        return True
    try:
        recorded = read_json(folder / _SIZES)
    except ValueError:
        return False
    return recorded.items() <= _sizes(folder).items()


def _sizes(folder: pathlib.Path) -> dict[str, int]:
    files = (file for file in folder.iterdir() if file.is_file() and file.name != _SIZES)
    return {file.name: file.stat().st_size for file in files}
