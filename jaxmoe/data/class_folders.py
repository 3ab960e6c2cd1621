"""Lists files that lie in one folder per class, with or without a folder per split above them."""

import pathlib

from jaxmoe.data.listing import ListedFile, Listing, make_listing

# What people call the folder of a split.
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


def list_class_folders(root: pathlib.Path) -> Listing:
    """Lists `root/<class>/<file>` or `root/<split>/<class>/<file>`.

    The folders below `root` are splits if there is a `train` among them and every one of them is
    named after a split (`train`, `validation`, `val`, `valid`, `test`, `training`, `testing`, in
    any case); otherwise they are classes and every file is a training file. Files may lie deeper;
    hidden files are left out.

    Args:
      root: the dataset's directory; it exists.

    Returns:
      A `Listing`; a file that turns out to be unusable is reported when it is opened.

    Raises:
      ValueError: no folder of a class holds a file, a label is missing from training, or a folder
        that is no split lies beside those of two splits.
    """
    folders = _visible_folders(root)
    splits = {folder: SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders}
    named = set(splits.values()) - {None}
    odd = [folder.name for folder, split in splits.items() if split is None]
    if "train" in named and len(named) > 1 and odd:
        raise ValueError(
            f"data.directory: {root} has a folder {odd[0]!r} beside those of splits; accepted are "
            f"class folders alone, or {', '.join(SPLIT_FOLDERS)} with class folders in them"
        )
    if "train" in named and not odd:
        labelled = [
            (split, folder) for top, split in splits.items() for folder in _visible_folders(top)
        ]
    else:
        labelled = [("train", folder) for folder in folders]
    videos = [
        ListedFile(file.relative_to(root).as_posix(), file, folder.name, split)
        for split, folder in labelled
        for file in folder.rglob("*")
        if file.is_file() and not _hidden(file.relative_to(folder))
    ]
    if not videos:
        raise ValueError(
            f"data.directory: {root} holds neither manifest.csv nor files in class folders "
            "(<class>/<file> or <split>/<class>/<file>)"
        )
    return make_listing(videos, None, "data.directory")


def _visible_folders(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX"))
    )


def _hidden(path: pathlib.Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
