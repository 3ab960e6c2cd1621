"""Prepares a dataset once: the cache folder, the fingerprint of the input, the lock."""

import hashlib
import json
import os
import pathlib
import shutil

import tensorflow_datasets as tfds

from jaxmoe.data.builders.clip_builder import ClipBuilder, prepared_folder
from jaxmoe.data.builders.prepared_files import locked, record_sizes
from jaxmoe.files import disk_error

# Raise it when stored records change their meaning; old ones are then built anew.
_FORMAT = 2


def cache_folder(cache: str | os.PathLike | None) -> pathlib.Path:
    """Returns `cache`, else `$JAXMOE_CACHE`, else `~/.cache/jaxmoe/datasets`.

    Raises:
      ValueError: it is in a home folder, and there is none.
    """
    chosen = cache or os.environ.get("JAXMOE_CACHE") or "~/.cache/jaxmoe/datasets"
    try:
        return pathlib.Path(chosen).expanduser().resolve()
    except RuntimeError:  # nobody's home
        raise ValueError(
            f"data.cache: {chosen} needs a home folder, and this user has none; expected a folder, "
            "here or in JAXMOE_CACHE"
        ) from None


def fingerprint(**parts) -> str:
    """Returns a short digest of everything that the prepared records depend on.

    Args:
      **parts: JSON-serialisable values; equal parts give equal digests in any process.

    Returns:
      16 hexadecimal digits.
    """
    text = json.dumps({"format": _FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prepare(builder: ClipBuilder) -> pathlib.Path:
    """Builds the records unless they are there, and returns their folder.

    TFDS builds in a temporary folder and renames it, so a folder that exists is complete. A lock
    per fingerprint lets processes on one machine wait for one build instead of each making it;
    the kernel frees it when its holder is killed, and what that one left is removed.

    Raises:
      ValueError: a split has no usable video.
      OSError: the cache folder cannot be written.
    """
    folder = prepared_folder(builder)
    if folder.is_dir() and not os.access(folder.parent.parent, os.W_OK):
        return folder  # a cache that others prepared, here to be read alone
    with locked(folder):
        if not folder.is_dir():
            for left_over in folder.parent.glob("incomplete.*"):
                shutil.rmtree(left_over)
            tfds.disable_progress_bar()
            try:
                builder.download_and_prepare(download_dir=folder.parent)
                record_sizes(folder)
            except Exception as error:
                # Half a data set is of no use, and its room may be what the next try needs.
                for left_over in folder.parent.glob("incomplete.*"):
                    shutil.rmtree(left_over, ignore_errors=True)
                if (full := disk_error(error, folder.parent)) is not None:
                    raise full from error
                raise
    return folder
