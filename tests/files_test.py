"""Files that are whole or not there, and folders that one process works in."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from jaxmoe.files import check_writable, disk_error, hold, is_held, naming, read_json, write_text

HOLDER = """
import pathlib, sys, time
from jaxmoe.files import hold
with hold(pathlib.Path(sys.argv[1]), "work", "FOLDER", "is used"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: pathlib.Path) -> subprocess.Popen:
    """A process that holds a folder until its standard input ends, or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def work(folder: pathlib.Path):
    return hold(folder, "work", "FOLDER", "is used")


def test_a_folder_is_held_until_its_holder_ends_even_if_it_is_killed(tmp_path):
    process = holder(tmp_path)
    assert is_held(tmp_path, "work")
    assert not is_held(tmp_path, "other work")
    said = rf"FOLDER: {tmp_path} is used by another process \(process {process.pid} on .*\)"
    with pytest.raises(ValueError, match=said), work(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not is_held(tmp_path, "work")
    with work(tmp_path):
        assert is_held(tmp_path, "work")
    assert not is_held(tmp_path, "work")
    assert list(tmp_path.iterdir()) == [], "a lock leaves nothing behind"


def test_a_lock_on_a_file_that_its_holder_removed_is_no_lock(tmp_path, monkeypatch):
    """Whoever opened the file before it was removed would hold what nobody else sees."""
    import jaxmoe.files as files

    lock, stolen = files._lock, []

    def removed_meanwhile(stream, kind):
        if not stolen:
            stolen.append(os.unlink(tmp_path / ".work.lock"))
        return lock(stream, kind)

    monkeypatch.setattr(files, "_lock", removed_meanwhile)
    with work(tmp_path):
        assert is_held(tmp_path, "work")
        with pytest.raises(ValueError, match="is used by another process"), work(tmp_path):
            pass


def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch):
    def no_locks(stream, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with work(tmp_path):
        assert not is_held(tmp_path, "work")


def test_a_write_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    write_text(file, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_text(file, "new")
    assert raised.value.filename == str(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_written_file_is_as_readable_as_any_other(tmp_path):
    write_text(tmp_path / "ours", "é")
    (tmp_path / "other").write_text("")
    assert (tmp_path / "ours").read_text("utf-8") == "é"
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("content", [b'{"a": ', b"", b"[1]", b"\xff\xfe{}"])
def test_json_that_is_cut_off_is_named(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{tmp_path}: its run\.json is damaged: "):
        read_json(tmp_path / "run.json")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_what_a_disk_says_is_found_in_the_errors_of_libraries(code):
    wrapped = RuntimeError(f"RESOURCE_EXHAUSTED: write: {os.strerror(code)} [os_error_code]")
    outer = ValueError("cannot finalize")
    outer.__cause__ = wrapped
    for error in (OSError(code, "x"), wrapped, outer):
        found = disk_error(error, "here")
        assert (found.errno, found.filename) == (code, "here")
    assert disk_error(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "here") is None


def test_a_system_error_without_a_file_gets_one(tmp_path):
    with pytest.raises(OSError, match="full") as raised, naming(tmp_path):
        raise OSError(errno.ENOSPC, "full")
    assert raised.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such run"), naming(tmp_path):
        raise FileNotFoundError("no such run")


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError) as raised:
        check_writable(tmp_path / "file" / "folder")
    assert raised.value.filename == str(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_named_and_not_its_lock(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "a lock")

    monkeypatch.setattr(pathlib.Path, "open", read_only)
    with pytest.raises(OSError, match="Read-only file system") as raised, work(tmp_path):
        pass
    assert raised.value.filename == str(tmp_path)
