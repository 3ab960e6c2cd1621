"""Lists the files of a dataset before any is opened: path, label and split of each."""

import dataclasses
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from jaxmoe.files import expand_home
from jaxmoe.spelling import ALIKE, did_you_mean

SPLITS = ("train", "validation", "test")

# What people call them: folders, and in a manifest.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


@dataclasses.dataclass(frozen=True)
class ListedFile:
    """One video or image: where it lies, what it shows, which split it belongs to.

    Attributes:
      path: path below the dataset's directory, with forward slashes; names it in reports.
      file: the file itself; it need not exist (a missing one is reported when it is opened).
      label: class name.
      split: one of `train`, `validation`, `test`.
      label_map: the file with a label for each pixel, of an image for segmentation.
      columns: what else is known of it, by name.
    """

    path: str
    file: pathlib.Path
    label: str
    split: str
    label_map: pathlib.Path | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Listing:
    """All files of a dataset in a fixed order; a file's place in it is the example's index.

    Attributes:
      classes: class names; a label's number is its place here.
      files: sorted by path, no path twice.
    """

    classes: tuple[str, ...]
    files: tuple[ListedFile, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have at least one listed file, in the order of `SPLITS`."""
        present = {file.split for file in self.files}
        return tuple(split for split in SPLITS if split in present)


def make_listing(
    files: Iterable[ListedFile],
    classes: Sequence[str] | None,
    field: str,
    *,
    trains: bool = True,
) -> Listing:
    """Sorts the files by path and checks that training covers every label.

    Labels that Unicode holds for the same text are one class.

    Args:
      files: the listed files, in any order.
      classes: class names in their official order, or None for the sorted labels, which are sorted
        by value where all are whole numbers.
      field: the configuration's field to name in an error, such as `data.manifest`.
      trains: whether there must be files to train on; else the classes are those of all files.

    Returns:
      A `Listing`.

    Raises:
      ValueError: no file, none for training, a path twice, or a label without training files.
    """
    ordered = tuple(sorted(map(_with_composed_label, files), key=lambda file: file.path))
    if not ordered:
        raise ValueError(f"{field}: lists no file")
    seen: dict[str, str] = {}
    for video in ordered:
        # Not by path alone: `a/../b.avi` and a link are `b.avi` too.
        file = os.path.realpath(video.file)
        if file in seen:
            other = "" if seen[file] == video.path else f", as {seen[file]} too"
            raise ValueError(
                f"{field}: lists {video.path} twice{other}; each file belongs to one split"
            )
        seen[file] = video.path
        if not video.label.isprintable():
            raise ValueError(f"{field}: label {video.label!r} of {video.path!r} cannot be printed")
    trained = {video.label for video in ordered if video.split == "train" or not trains}
    if not trained:
        raise ValueError(f"{field}: lists no file for training (split 'train')")
    for video in ordered:
        if video.label not in trained:
            raise ValueError(
                f"{field}: label {video.label!r} of {video.path} ({video.split}) has no file "
                f"in train{did_you_mean(video.label, trained, ALIKE)}"
            )
    return Listing(tuple(map(_composed, classes or ())) or _in_order(trained), ordered)


def _with_composed_label(file: ListedFile) -> ListedFile:
    return dataclasses.replace(file, label=_composed(file.label))


def _composed(label: str) -> str:
    """A label with one code point for an accented letter: macOS writes two in names of folders."""
    return unicodedata.normalize("NFC", label)


def _in_order(labels: set[str]) -> tuple[str, ...]:
    """Sorted; labels that are all whole numbers by their value: 1, 6, 11 and not 1, 11, 6."""
    if all(re.fullmatch("-?[0-9]+", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def require_directory(directory: str | pathlib.Path | None) -> pathlib.Path:
    """Returns the data directory as an absolute path.

    Raises:
      ValueError: it is not given, or a file.
      FileNotFoundError: there is no such directory.
    """
    if directory is None or str(directory) == "":
        raise ValueError("data.directory: not given; it names the folder that holds the data")
    path = expand_home(directory, "data.directory")
    if path.is_file():
        raise ValueError(f"data.directory: {directory} is a file; expected a folder with the data")
    if not path.is_dir():
        raise FileNotFoundError(f"data.directory: no such directory: {directory}")
    return path.resolve()
