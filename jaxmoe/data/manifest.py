"""Lists the files that a CSV file with the columns `path,label,split` names."""

import csv
import pathlib

from jaxmoe.data.listing import SPLITS, ListedFile, Listing, make_listing, nearest

COLUMNS = ("path", "label", "split")


def read_manifest(file: pathlib.Path, directory: pathlib.Path) -> Listing:
    """Reads a manifest: one line per file, UTF-8, columns `path,label,split` in any order.

    Args:
      file: the CSV file.
      directory: the folder that relative paths in it start from.

    Returns:
      A `Listing`; a path without a file is reported when it is opened, like a corrupt one.

    Raises:
      FileNotFoundError: there is no such manifest.
      ValueError: an unknown or missing column, an unknown split, an empty field, a path twice, or
        a label that only validation or test has. The message is one line and names the place.
    """
    if not file.is_file():
        raise FileNotFoundError(f"data.manifest: no such file: {file}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"data.manifest: {file} is no CSV file in UTF-8: {error}") from None
    if not lines:
        raise ValueError(f"data.manifest: {file} is empty; its first line is {','.join(COLUMNS)}")
    header = lines[0]
    _check_header(header, file)
    videos = [
        _video(dict(zip(header, line, strict=False)), len(header) == len(line), where, directory)
        for number, line in enumerate(lines[1:], start=2)
        if line
        for where in [f"data.manifest: {file}, line {number}"]
    ]
    return make_listing(videos, None, f"data.manifest: {file}")


def _check_header(header: list[str], file: pathlib.Path) -> None:
    for column in header:
        if column not in COLUMNS:
            raise ValueError(
                f"data.manifest: {file} has an unknown column {column!r}; accepted are "
                f"{', '.join(COLUMNS)}{nearest(column, COLUMNS)}"
            )
    for column in COLUMNS:
        if header.count(column) != 1:
            found = "no" if column not in header else "more than one"
            raise ValueError(
                f"data.manifest: {file} has {found} column {column!r}; needed are "
                f"{', '.join(COLUMNS)}, once each"
            )


def _video(row: dict[str, str], complete: bool, where: str, root: pathlib.Path) -> ListedFile:
    if not complete:
        raise ValueError(f"{where}: needs {len(COLUMNS)} fields, {','.join(COLUMNS)}")
    for column in COLUMNS:
        if not row[column]:
            raise ValueError(f"{where}: {column} is empty")
        if row[column] != row[column].strip():
            raise ValueError(f"{where}: {column} {row[column]!r} has blanks around it")
    if row["split"] not in SPLITS:
        raise ValueError(
            f"{where}: unknown split {row['split']!r}; accepted are "
            f"{', '.join(SPLITS)}{nearest(row['split'], SPLITS)}"
        )
    path = pathlib.PurePath(row["path"]).as_posix()
    return ListedFile(path, root / path, row["label"], row["split"])
