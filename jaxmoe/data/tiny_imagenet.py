"""Lists the images of an extracted Tiny-ImageNet archive."""

import csv
import pathlib

from jaxmoe.data.listing import ListedFile, Listing, make_listing
from jaxmoe.data.walking import files_below

_FIELD = "data.directory"


def list_tiny_imagenet(directory: pathlib.Path) -> Listing:
    """Lists `train/<wnid>/images/*` and `val/images/*`, whose labels `val_annotations.txt` has.

    The published test images have no labels, so `val` is the test split, as in the literature; a
    validation split is held out of train.

    Args:
      directory: `tiny-imagenet-200`, or the folder that holds it; it exists.

    Raises:
      ValueError, FileNotFoundError: one line that names the field.
    """
    nested = directory / "tiny-imagenet-200"
    root = nested if nested.is_dir() else directory
    for needed in ("wnids.txt", "val/val_annotations.txt"):
        if not (root / needed).is_file():
            raise FileNotFoundError(f"{_FIELD}: {root} has no {needed}; it is no Tiny-ImageNet")
    classes = (root / "wnids.txt").read_text(encoding="utf-8").split()
    files = []
    for wnid in classes:
        images = root / "train" / wnid / "images"
        for image in files_below(images) if images.is_dir() else []:
            files.append(ListedFile(image.relative_to(root).as_posix(), image, wnid, "train"))
    with (root / "val" / "val_annotations.txt").open(newline="", encoding="utf-8") as stream:
        for line, row in enumerate(csv.reader(stream, delimiter="\t"), start=1):
            if len(row) < 2 or row[1] not in classes:
                raise ValueError(
                    f"{_FIELD}: {stream.name}, line {line}: expected an image, a tab, and one of "
                    f"the {len(classes)} classes of wnids.txt"
                )
            image = root / "val" / "images" / row[0]
            files.append(ListedFile(image.relative_to(root).as_posix(), image, row[1], "test"))
    return make_listing(files, classes, _FIELD)
