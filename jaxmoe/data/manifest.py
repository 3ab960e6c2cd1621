"""Lists the files that a CSV file with the columns `path,label,split` names, and any others."""

import csv
import pathlib

from jaxmoe.data.listing import SPLITS, ListedFile, Listing, make_listing, nearest


def read_manifest(
    file: pathlib.Path, directory: pathlib.Path, *, label_maps: bool = False
) -> Listing:
    """Reads a manifest: one line per file, UTF-8, columns `path,label,split` in any order.

    Other columns say what else is known of a file, to take subsets by.

    Args:
      file: the CSV file.
      directory: the folder that relative paths in it start from.
      label_maps: the columns are `path,label_map,split`, with the path of a file of labels.

    Returns:
      A `Listing`; a path without a file is reported when it is opened, like a corrupt one.

    Raises:
      FileNotFoundError: there is no such manifest.
      ValueError: a missing column, an unknown split, an empty field, a path twice, or
        a label that only validation or test has. The message is one line and names the place.
    """
    if not file.is_file():
        raise FileNotFoundError(f"data.manifest: no such file: {file}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"data.manifest: {file} is no CSV file in UTF-8: {error}") from None
    needed = ("path", "label_map" if label_maps else "label", "split")
    if not lines:
        raise ValueError(f"data.manifest: {file} is empty; its first line is {','.join(needed)}")
    header = lines[0]
    _check_header(header, needed, file)
    files = [
        _file(header, line, needed, where, directory)
        for number, line in enumerate(lines[1:], start=2)
        if line
        for where in [f"data.manifest: {file}, line {number}"]
    ]
    return make_listing(files, None, f"data.manifest: {file}")


def _check_header(header: list[str], needed: tuple[str, ...], file: pathlib.Path) -> None:
    for column in dict.fromkeys([*needed, *header]):
        if header.count(column) != 1:
            found = "no" if column not in header else "more than one"
            raise ValueError(
                f"data.manifest: {file} has {found} column {column!r}; needed are "
                f"{', '.join(needed)}, once each"
                + ("" if column in header else nearest(column, header))
            )


def _file(
    header: list[str], line: list[str], needed: tuple[str, ...], where: str, root: pathlib.Path
) -> ListedFile:
    if len(line) != len(header):
        raise ValueError(f"{where}: needs {len(header)} fields, {','.join(header)}")
    row = dict(zip(header, line, strict=True))
    for column in needed:
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
    columns = {name: row[name] for name in header if name not in needed}
    label, label_map = row.get("label", ""), None
    if "label_map" in needed:
        label, label_map = "", root / row["label_map"]
    return ListedFile(path, root / path, label, row["split"], label_map, columns)
