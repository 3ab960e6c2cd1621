"""Lists the files that a CSV file with the columns `path,label,split` names, and any others."""

import csv
import io
import pathlib

from jaxmoe.data.listing.listing import (
    SPLIT_NAMES,
    SPLITS,
    ListedFile,
    Listing,
    make_listing,
)
from jaxmoe.data.listing.text import read_text
from jaxmoe.spelling import ALIKE, did_you_mean

_SEPARATORS = (",", ";", "\t", "|")


def read_manifest(
    file: pathlib.Path,
    directory: pathlib.Path,
    *,
    label_maps: bool = False,
    trains: bool = True,
) -> Listing:
    """Reads a manifest: one line per file, columns `path,label,split` in any order.

    Other columns say what else is known of a file, to take subsets by. The text is UTF-8, or
    UTF-16 with a byte order mark, as spreadsheets write it. Fields are separated by that one of
    comma, semicolon, tab and bar by which the first line has the columns. A split may have any name
    of `listing.SPLIT_NAMES`. In a path without a file, backslashes are slashes. Empty rows, and
    empty columns at the end, say nothing.

    Args:
      file: the CSV file.
      directory: the folder that relative paths in it start from.
      label_maps: the columns are `path,label_map,split`, with the path of a file of labels.
      trains: whether there must be files to train on, of every label.

    Returns:
      A `Listing`; a path without a file is reported when it is opened, like a corrupt one.

    Raises:
      FileNotFoundError: there is no such manifest.
      ValueError: a missing column, an unknown split, an empty field, a path twice, or
        a label that only validation or test has. The message is one line and names the place.
    """
    if not file.is_file():
        raise FileNotFoundError(f"data.manifest: no such file: {file}")
    needed = ("path", "label_map" if label_maps else "label", "split")
    try:
        lines = _lines(read_text(file, "data.manifest"), needed)
    except csv.Error as error:
        raise ValueError(f"data.manifest: {file} is no CSV file: {error}") from None
    if not lines:
        raise ValueError(f"data.manifest: {file} is empty; its first line is {','.join(needed)}")
    _, header = lines[0]
    while header and not header[-1]:
        header.pop()
    _check_header(header, needed, file)
    files = [
        _file(header, line, needed, where, directory)
        for number, line in lines[1:]
        if any(line)
        for where in [f"data.manifest: {file}, line {number}"]
    ]
    return make_listing(files, None, f"data.manifest: {file}", trains=trains)


def _lines(text: str, needed: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """The fields of each row, with the number of its last line in the file."""
    lines = list(io.StringIO(text, newline=""))
    told = bool(lines) and lines[0].lower().startswith("sep=")  # of a spreadsheet, for another
    header = lines[told] if len(lines) > told else ""

    def found(separator: str) -> int:
        return len({*needed}.intersection(*csv.reader([header], delimiter=separator)))

    reader = csv.reader(lines[told:], delimiter=max(_SEPARATORS, key=found))
    return [(reader.line_num + told, row) for row in reader]


def _check_header(header: list[str], needed: tuple[str, ...], file: pathlib.Path) -> None:
    for column in dict.fromkeys([*needed, *header]):
        if header.count(column) != 1:
            found = "no" if column not in header else "more than one"
            raise ValueError(
                f"data.manifest: {file} has {found} column {column!r}; needed are "
                f"{', '.join(needed)}, once each"
                + ("" if column in header else did_you_mean(column, header, ALIKE))
            )


def _file(
    header: list[str], line: list[str], needed: tuple[str, ...], where: str, root: pathlib.Path
) -> ListedFile:
    if len(line) < len(header) or any(line[len(header) :]):
        raise ValueError(f"{where}: needs {len(header)} fields, {','.join(header)}")
    row = dict(zip(header, line, strict=False))
    for column in needed:
        if not row[column]:
            raise ValueError(f"{where}: {column} is empty")
        if row[column] != row[column].strip():
            raise ValueError(f"{where}: {column} {row[column]!r} has blanks around it")
    split = SPLIT_NAMES.get(row["split"].lower())
    if split is None:
        raise ValueError(
            f"{where}: unknown split {row['split']!r}; accepted are "
            f"{', '.join(SPLITS)}{did_you_mean(row['split'], SPLITS, ALIKE)}"
        )
    path = _with_slashes(row["path"], root)
    columns = {name: row[name] for name in header if name not in needed}
    label, label_map = row.get("label", ""), None
    if "label_map" in needed:
        label, label_map = "", root / _with_slashes(row["label_map"], root)
    return ListedFile(path, root / path, label, split, label_map, columns)


def _with_slashes(path: str, root: pathlib.Path) -> str:
    """A path that may have been written on another system; here a name may have a backslash."""
    if "\\" in path and not (root / path).exists():
        path = path.replace("\\", "/")
    return pathlib.PurePath(path).as_posix()
