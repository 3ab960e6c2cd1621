"""Files that are whole or not there, folders that one process works in, and what a disk says."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OF_DISKS = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# Whoever asks whether a lock is held has it for a moment.
_TRIES_AFTER = (0.0, 0.05, 0.1, 0.2)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file beside its place and moves it there: whoever reads it finds a whole one.

    Raises:
      OSError: it cannot be written, with its path; the file that was there before is as it was.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file of bytes, as `write_text` does."""
    path = pathlib.Path(path)
    with naming(path), contextlib.ExitStack() as left_over:
        with tempfile.NamedTemporaryFile(
            "wb", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            left_over.callback(pathlib.Path(file.name).unlink, missing_ok=True)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A temporary file is its owner's alone; a result is as readable as any other file.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(file.name, 0o666 & ~mask)
        os.replace(file.name, path)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: pathlib.Path, kind: type[dict] | type[list] = dict) -> Any:
    """The object, or list, in a JSON file.

    Raises:
      ValueError: it is cut off, or no such JSON: a line that names the folder and the file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, kind):
            raise ValueError(f"it holds a {type(found).__name__}; expected a {kind.__name__}")
    except ValueError as error:  # of JSON and of UTF-8
        raise ValueError(f"{path.parent}: its {path.name} is damaged: {error}") from None
    return found


def expand_home(path: str | os.PathLike, field: str) -> pathlib.Path:
    """Returns a path in which `~` and `~NAME` are the folders that they stand for.

    Raises:
      ValueError: nobody has that home; a line that begins with `field`.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{field}: {path} begins with the home folder of nobody here") from None


def disk_error(error: BaseException | None, path: str | os.PathLike) -> OSError | None:
    """Returns the disk's own error, as an OSError with a path; None of another error.

    Libraries wrap the system's error in their own, and keep its words.
    """
    while error is not None:
        for code in _OF_DISKS:
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                return OSError(
                    code, os.strerror(code), getattr(error, "filename", None) or str(path)
                )
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Gives system errors that say no file, as of a full disk, this path."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_writable(folder: pathlib.Path) -> None:
    """Refuses a folder that could not be made or written, before hours of work end there.

    Raises:
      OSError: with the path that is in the way.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(place))


@contextlib.contextmanager
def hold(folder: pathlib.Path, name: str, field: str, doing: str) -> Iterator[None]:
    """Keeps a folder from other processes that hold it under the same name; makes it if need be.

    The lock is the kernel's, on `FOLDER/.NAME.lock`: it ends with the process, even a killed one.
    File systems without locks hold nothing. System errors inside that name no file name the folder.

    Args:
      folder: where.
      name: of what is done there; other names are not in its way.
      field: what the folder is called in an error.
      doing: the same, as "is being trained".

    Raises:
      ValueError: another process holds it.
      OSError: the folder cannot be written.
    """
    file = _lock_file(folder, name)
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            while True:
                stream = held.enter_context(_open_lock(file))
                if not _lock(stream, fcntl.LOCK_EX):
                    stream.seek(0)
                    who = stream.read().strip() or "unknown"
                    raise ValueError(
                        f"{field}: {folder} {doing} by another process ({who}); wait for its end, "
                        "or choose another folder"
                    )
                if _is_at(stream, file):
                    break  # else its holder ended, and removed it, while it was opened here
            held.callback(file.unlink, missing_ok=True)
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            stream.flush()
            yield


def is_held(folder: pathlib.Path, name: str) -> bool:
    """Returns whether a process holds the folder under this name now; it may be read-only here."""
    try:
        with _lock_file(folder, name).open(encoding="utf-8") as stream:
            return not _lock(stream, fcntl.LOCK_SH)
    except OSError:
        return False  # no such file, or none that this user may read


def _lock_file(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / f".{name}.lock"


def _open_lock(file: pathlib.Path) -> IO[str]:
    try:
        return file.open("a+", encoding="utf-8")
    except OSError as error:  # the user knows of a folder, and of no lock
        raise OSError(error.errno, error.strerror, str(file.parent)) from None


def _is_at(stream: IO[str], file: pathlib.Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(stream.fileno()), file.stat())
    return False


def _lock(stream: IO[str], kind: int) -> bool:
    """Returns whether the file is locked now, or its file system has no locks."""
    for seconds in _TRIES_AFTER:
        time.sleep(seconds)
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return True
    return False


def code_digest() -> str:
    """Returns a digest of every file of this package."""
    digest = hashlib.sha256()
    for file in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
