"""Walks a data set's folders: links are followed, and what programs leave behind is left out."""

import os
import pathlib

# Left by file managers, archivers, network storage and operating systems; compared in lower case.
_LEFT_BEHIND = frozenset(
    (
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db"),  # Windows
        *("desktop.ini", "$recycle.bin", "system volume information", "folder.jpg:encryptable"),
        *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology
        *("@recycle", "@recently-snapshot"),  # QNAP
        *("lost+found", "__pycache__", "picasa.ini", "pspbrwse.jbf"),
    )
)
# A folder of the same name in small letters may be a class.
_LEFT_BEHIND_IN_CAPITALS = frozenset(("RECYCLER", "RECYCLED", "FOUND.000"))
_ENDINGS = ("~", ":Zone.Identifier", "@SynoEAStream", "@SynoResource")


def left_behind(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or is what some program left behind."""
    return (
        name.startswith(".")
        or name.lower() in _LEFT_BEHIND
        or name in _LEFT_BEHIND_IN_CAPITALS
        or name.endswith(_ENDINGS)
    )


def folders_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders in a folder, sorted by name, linked ones too unless they lead back.

    Raises:
      ValueError: it cannot be read.
    """
    paths = [folder / entry.name for entry in _entries(folder)]
    return [path for path in paths if path.is_dir() and not _leads_back(path)]


def check_links(folder: pathlib.Path) -> None:
    """Refuses a link to nothing in a folder of folders: it may have been one of them.

    Raises:
      ValueError: there is one, or the folder cannot be read.
    """
    for entry in _entries(folder):
        path = folder / entry.name
        if path.is_symlink() and not path.exists():
            raise ValueError(
                f"data.directory: {path} is a link to {os.readlink(path)}, which is not there; "
                "expected a folder, or no such link"
            )


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files anywhere below a folder, sorted by path.

    Links to files and to folders are followed, but not back to a folder that they lie in. A file
    that is reached in several ways is listed once, where it lies if that is below `folder`. A link
    to nothing is listed as a file.

    Raises:
      ValueError: a folder cannot be read.
    """
    files: dict[str, pathlib.Path] = {}
    folders: set[str] = set()
    waiting, links = [folder], []
    while waiting or links:
        # What lies here comes first: a link to it is then known.
        current = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(current)
        if not current.is_dir():
            files.setdefault(real, current)
            continue
        if real in folders:
            continue
        folders.add(real)
        for entry in _entries(current):
            path = current / entry.name
            if entry.is_symlink():
                special = path.exists() and not (path.is_dir() or path.is_file())
                if not special and not _leads_back(path):
                    links.append(path)
            elif entry.is_dir():
                waiting.append(path)
            elif entry.is_file():
                files[os.path.join(real, entry.name)] = path
    return sorted(files.values())


def _leads_back(path: pathlib.Path) -> bool:
    """Returns whether a path is a link to a folder that it lies in."""
    if not path.is_symlink():
        return False
    target = os.path.realpath(path)
    return os.path.commonpath([target, os.path.realpath(path.parent)]) == target


def _entries(folder: pathlib.Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not left_behind(entry.name)]
    except OSError as error:
        raise ValueError(f"data.directory: {folder} cannot be read: {error.strerror}") from None
    return sorted(kept, key=lambda entry: entry.name)
