"""Prepared records: whole or made anew, and what is said where a disk or a right is missing."""

import errno
import os
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxmoe.data import load_dataset


def _load(folder):
    return load_dataset("video_folder", directory=folder, resolution=16, frames=4)


def test_a_full_disk_is_a_line_with_the_folder_and_leaves_no_half_data_set(folder, monkeypatch):
    def full(builder, download_dir):
        (download_dir / "incomplete.ABC").mkdir(parents=True)
        raise RuntimeError("Failed to finalize writing: write() failed: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tfds.core.DatasetBuilder, "download_and_prepare", full)
        with pytest.raises(OSError, match="No space left on device") as raised:
            _load(folder)
    cache = pathlib.Path(raised.value.filename)
    assert cache.is_dir()
    assert list(cache.iterdir()) == []
    assert _load(folder).folder.parent == cache


@pytest.mark.parametrize("lost", ["dataset_info.json", "features.json", "*train*", "sizes.json"])
def test_prepared_records_that_were_copied_in_part_are_prepared_anew(folder, lost):
    whole = _load(folder)
    frames = whole.train[0]["frames"][np.arange(4)]
    (file,) = whole.folder.glob(lost)
    size = file.stat().st_size
    for damage in (lambda: os.truncate(file, size // 2), file.unlink):
        damage()
        again = _load(folder)
        np.testing.assert_array_equal(again.train[0]["frames"][np.arange(4)], frames)
        assert again.counts == whole.counts
        assert lost == "sizes.json" or file.stat().st_size == size


def test_a_cache_that_may_only_be_read_is_read(folder, monkeypatch):
    whole = _load(folder)
    monkeypatch.setattr("os.access", lambda path, mode: mode == os.R_OK)
    monkeypatch.setattr("fcntl.flock", None)
    assert _load(folder).counts == whole.counts


def test_a_video_that_may_be_read_from_now_on_is_no_longer_left_out(folder, monkeypatch):
    closed, opened = folder / "train" / "kick+" / "a b.avi", pathlib.Path.open

    def refuse(path, *arguments, **options):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "open", refuse)
        patched.setattr("os.access", lambda path, mode: path != closed)
        ((path, reason),) = _load(folder).skipped
        assert path == "train/kick+/a b.avi"
        assert "Permission denied" in reason
    assert not _load(folder).skipped


def test_an_error_that_is_no_disks_is_raised_as_it_is(folder, monkeypatch):
    def broken(builder, download_dir):
        raise RuntimeError("something else")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", broken)
    with pytest.raises(RuntimeError, match="something else") as raised:
        _load(folder)
    assert raised.value.__cause__ is None


def test_a_clip_is_not_left_out_for_good_for_what_passes(folder, monkeypatch):
    def refuse(file, *arguments):
        raise OSError(errno.EMFILE, "Too many open files", str(file))

    with monkeypatch.context() as patched:
        patched.setattr("jaxmoe.data.decoding.decode.file_end", refuse)
        with pytest.raises(OSError, match="Too many open files") as raised:
            _load(folder)
    assert raised.value.filename.startswith(str(folder))
    assert not _load(folder).skipped
