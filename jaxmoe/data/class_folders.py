"""Lists files that lie in one folder per class, with or without a folder per split above them."""

import pathlib

from jaxmoe.data.listing import SPLIT_NAMES, ListedFile, Listing, make_listing
from jaxmoe.data.walking import files_below, folders_in


def list_class_folders(root: pathlib.Path, *, trains: bool = True) -> Listing:
    """Lists `root/<class>/<file>` or `root/<split>/<class>/<file>`.

    The folders below `root` are splits if there is a `train` among them and every one of them is
    named after a split (`listing.SPLIT_NAMES`, in any case); otherwise they are classes and every
    file is a training file. Files may lie deeper; links are followed; hidden files, and what file
    managers and the like leave behind (`jaxmoe.data.walking`), are left out.

    Args:
      root: the dataset's directory; it exists.
      trains: whether there must be files to train on; else folders that are all named after splits
        are splits without a `train` too.

    Returns:
      A `Listing`; a file that turns out to be unusable is reported when it is opened.

    Raises:
      ValueError: a class has no file, or none in training; a folder that is no split lies beside
        splits, or a split has files and no class; the splits lie one folder deeper.
    """
    folders = folders_in(root)
    splits = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    named = set(splits.values()) - {None}
    odd = [folder.name for folder, split in splits.items() if split is None]
    _check_not_above(root, folders)
    if "train" in named and odd and (len(named) > 1 or _has_classes_of_train(splits)):
        raise ValueError(
            f"data.directory: {root} has a folder {odd[0]!r} beside those of splits; accepted are "
            f"class folders alone, or {', '.join(SPLIT_NAMES)} with class folders in them"
        )
    if ("train" in named or (named and not trains)) and not odd:
        _check_have_classes(folders)
        labelled = [(split, folder) for top, split in splits.items() for folder in folders_in(top)]
    else:
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


def _has_classes_of_train(splits: dict[pathlib.Path, str | None]) -> bool:
    """Whether a folder that is no split, such as `eval`, has folders named as those of train."""
    names = {split: set() for split in splits.values()}
    for folder, split in splits.items():
        names[split] |= {inner.name for inner in folders_in(folder)}
    return bool(names["train"] & names[None])


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
