"""Lists files that lie in one folder per class, with or without a folder per split above them."""

import pathlib
import re

from jaxmoe.data.listing.listing import SPLIT_NAMES, ListedFile, Listing, make_listing
from jaxmoe.data.listing.walking import check_links, files_below, folders_in

# Folders that may be splits, such as `test_set` and `train2017`.
_SPLIT_LIKE = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)


def list_class_folders(root: pathlib.Path, *, trains: bool = True) -> Listing:
    """Lists `root/<class>/<file>` or `root/<split>/<class>/<file>`.

    The folders below `root` are splits if there is a `train` among them and every one of them is
    named after a split (`listing.SPLIT_NAMES`, in any case); otherwise they are classes and every
    file is a training file. Files may lie deeper; links are followed; hidden files, and what file
    managers and the like leave behind (`jaxmoe.data.listing.walking`), are left out.

    Args:
      root: the dataset's directory; it exists.
      trains: whether there must be files to train on; else folders that are all named after splits
        are splits without a `train` too.

    Returns:
      A `Listing`; a file that turns out to be unusable is reported when it is opened.

    Raises:
      ValueError: a class has no file, or none in training; a link to nothing may be a class; a
        folder that is no split lies beside splits, or a split has files and no class; splits have
        other names, or lie one deeper.
    """
    check_links(root)
    folders = folders_in(root)
    splits = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    named = set(splits.values()) - {None}
    odd = [folder.name for folder, split in splits.items() if split is None]
    _check_not_above(root, folders)
    if "train" in named and len(named) > 1 and odd:
        raise ValueError(
            f"data.directory: {root} has a folder {odd[0]!r} beside those of splits; accepted are "
            f"class folders alone, or {', '.join(SPLIT_NAMES)} with class folders in them"
        )
    if ("train" in named or (named and not trains)) and not odd:
        for folder in folders:
            check_links(folder)
        _check_have_classes(folders)
        labelled = [(split, folder) for top, split in splits.items() for folder in folders_in(top)]
    else:
        _check_are_no_splits(root, folders)
        labelled = [("train", folder) for folder in folders]
    found = {folder: files_below(folder) for _, folder in labelled}
    if not any(found.values()):
        raise ValueError(
            f"data.directory: {root} holds neither manifest.csv nor files in class folders "
            "(<class>/<file> or <split>/<class>/<file>)"
        )
    _check_none_is_empty(found)
    return make_listing(
        (
            ListedFile(file.relative_to(root).as_posix(), file, folder.name, split)
            for split, folder in labelled
            for file in found[folder]
        ),
        None,
        "data.directory",
        trains=trains,
    )


def _check_not_above(root: pathlib.Path, folders: list[pathlib.Path]) -> None:
    """Refuses a folder with nothing but a data set's folder: it would be the only class."""
    if len(folders) != 1 or folders[0].name.lower() in SPLIT_NAMES:
        return
    if any(SPLIT_NAMES.get(inner.name.lower()) == "train" for inner in folders_in(folders[0])):
        raise ValueError(
            f"data.directory: {root} has one folder, with splits in it; expected {folders[0]}"
        )


def _check_are_no_splits(root: pathlib.Path, folders: list[pathlib.Path]) -> None:
    """Refuses `train` and `eval`, or `training_set` and `test_set`, each with the same classes."""
    named = [folder.name for folder in folders if _SPLIT_LIKE.match(folder.name)]
    if not named or len(folders) < 2:
        return
    # A class may have a folder for each clip, and number them.
    inner = [{f.name for f in folders_in(folder) if not f.name.isdigit()} for folder in folders]
    if set.intersection(*inner):
        raise ValueError(
            f"data.directory: {root} has the folders {', '.join(f.name for f in folders)} with "
            "the same folders in each, as splits have; expected train, validation and test"
        )


def _check_have_classes(folders: list[pathlib.Path]) -> None:
    """Refuses a split whose files lie in no class: they would be missing without a word."""
    for folder in folders:
        if not folders_in(folder) and (files := files_below(folder)):
            raise ValueError(
                f"data.directory: {folder} has files and no class folder, such as {files[0].name}; "
                f"expected {folder.name}/<class>/<file>, or no such folder"
            )


def _check_none_is_empty(found: dict[pathlib.Path, list[pathlib.Path]]) -> None:
    """Refuses a class that has no file in any split: the others would be fewer classes."""
    filled = {folder.name for folder, files in found.items() if files}
    for folder in found:
        if folder.name not in filled:
            raise ValueError(
                f"data.directory: the class folder {folder} holds no file; expected some, or no "
                "such folder"
            )
