"""Lists the images of an extracted Tiny-ImageNet archive."""

import pathlib

from jaxmoe.data.listing.listing import ListedFile, Listing, make_listing
from jaxmoe.data.listing.text import read_text
from jaxmoe.data.listing.walking import files_below

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
    classes = read_text(root / "wnids.txt", _FIELD).split()
    files = []
    for wnid in classes:
        images = root / "train" / wnid / "images"
        for image in files_below(images) if images.is_dir() else []:
            files.append(ListedFile(image.relative_to(root).as_posix(), image, wnid, "train"))
    annotations = root / "val" / "val_annotations.txt"
    for line, row in enumerate(read_text(annotations, _FIELD).splitlines(), start=1):
        name, _, rest = row.partition("\t")
        label = rest.partition("\t")[0]
        if label not in classes:
            raise ValueError(
                f"{_FIELD}: {annotations}, line {line}: expected an image, a tab, and one of "
                f"the {len(classes)} classes of wnids.txt"
            )
        image = root / "val" / "images" / name
        files.append(ListedFile(image.relative_to(root).as_posix(), image, label, "test"))
    return make_listing(files, classes, _FIELD)
