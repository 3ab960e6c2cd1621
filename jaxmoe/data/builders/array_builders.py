"""TFDS builders of images that are arrays: `ImageArrays`, and of an `.npz` file.

N = images, H = height, W = width
"""

import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

from jaxmoe.data.builders.clip_builder import ClipBuilder, PlannedClip, Progress
from jaxmoe.data.builders.prepare import cache_folder, fingerprint
from jaxmoe.data.decoding.unusable import UnusableClipError
from jaxmoe.data.listing.listing import SPLITS
from jaxmoe.files import expand_home

# Of labels without names; a higher one is no class number where there are fewer images.
_CLASSES_AT_MOST = 1000


class ImageArrays(ClipBuilder, skip_registration=True):
    """Images of arrays: for each split N images `uint8[N, H, W, 3]` or `[N, H, W]`, and labels.

    Args of the constructor: `splits`, by name images and labels; `classes`, their names;
    `source`, JSON that tells one version of the data from another; `cache` and `progress` as in
    `FolderBuilder`. An image's path has its number and a digest of its pixels: splits of other
    images are other splits.
    """

    name = "image_arrays"
    VERSION = tfds.core.Version("1.1.0")  # 1.1.0: digests in paths

    def __init__(
        self,
        splits: dict[str, tuple[np.ndarray, np.ndarray]],
        classes: Sequence[str],
        source: object,
        *,
        cache: str | os.PathLike | None = None,
        progress: Progress | None = None,
    ):
        plan: dict[str, list[PlannedClip]] = {}
        first = 0
        for split, (images, labels) in splits.items():
            plan[split] = [
                PlannedClip(first + i, f"{split}/{i:06d}-{_digest(image)}", int(label), image)
                for i, (image, label) in enumerate(zip(images, labels, strict=True))
            ]
            first += len(images)
        super().__init__(
            plan=plan,
            classes=tuple(classes),
            codec="raw",
            fingerprint=fingerprint(
                builder=self.name, version=str(self.VERSION), source=source, classes=list(classes)
            ),
            data_dir=cache_folder(cache),
            progress=progress,
        )

    def render(self, clips: list[PlannedClip]) -> Iterator[np.ndarray | UnusableClipError]:
        """Each image as a clip of one frame; grey ones in three equal channels."""
        for clip in clips:
            image = np.asarray(clip.source)
            if image.ndim == 2 or image.shape[-1] == 1:
                image = np.broadcast_to(image.reshape(*image.shape[:2], 1), (*image.shape[:2], 3))
            yield image[None]


def _digest(image: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=4).hexdigest()


def read_npz(file: str | os.PathLike | None, *, trains: bool = True, **fields) -> ImageArrays:
    """The builder of an `.npz` file with `x_train`, `y_train`, `x_test`, `y_test`.

    `x_validation` (or `x_val`) and its labels may be there, and `classes`, the classes' names; the
    names are else the labels' numbers.

    Args:
      file: the file; images `uint8[N, H, W, 3]` or `[N, H, W]`, labels integers `[N]` from 0.
      trains: whether there must be images to train on.
      **fields: of `ImageArrays`.

    Raises:
      ValueError, FileNotFoundError: one line that names the field.
    """
    if not file:
        raise ValueError("data.directory: not given; it names the .npz file")
    path = expand_home(file, "data.directory")
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"data.directory: {path} {found}; expected an .npz file")
    try:
        # NumPy leaves a broken file open that it opened itself.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    # NumPy and zipfile raise what they like of a broken file.
    except Exception as error:
        raise ValueError(f"data.directory: {path} is no .npz file of plain arrays") from error
    splits = _splits_of(path, found)
    if not splits or (trains and "train" not in splits):
        names, wanted = ", ".join(found) or "nothing", "train" if trains else "test"
        raise ValueError(f"data.directory: {path} has {names}; expected x_{wanted} and y_{wanted}")
    for split, (images, labels) in splits.items():
        if fault := _fault_of(images):
            raise ValueError(f"data.directory: x_{split} of {path} {fault}")
        if fault := _fault_of_labels(labels, len(images)):
            raise ValueError(f"data.directory: y_{split} of {path} {fault}")
    names = _class_names(path, splits, found.get("classes"), trains)
    status = path.stat()
    identity = [path.name, status.st_size, status.st_mtime_ns]
    return ImageArrays(splits, names, identity, **fields)


def _splits_of(
    path: pathlib.Path, found: dict[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of each split; a half of one is an error."""
    splits = {}
    for split, spelt in (*((split, split) for split in SPLITS), ("validation", "val")):
        names = f"x_{spelt}", f"y_{spelt}"
        if not found.keys() & set(names):
            continue
        for name in names:
            if name not in found:
                raise ValueError(f"data.directory: {path} has no {name}")
        if split in splits:
            raise ValueError(f"data.directory: {path} has x_{split} and x_{spelt}; expected one")
        splits[split] = found[names[0]], found[names[1]]
    return splits


def _fault_of(images: np.ndarray) -> str | None:
    """Returns what is wrong with an array of images, and what would mend it."""
    shape = f"is {images.dtype}{list(images.shape)}"
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3):
        return f"{shape}, channels first; expected them last: x.transpose(0, 2, 3, 1)"
    colour = images.ndim == 4 and images.shape[-1] in (1, 3)
    if images.dtype != np.uint8 or not (images.ndim == 3 or colour):
        return f"{shape}; expected uint8[N, H, W, 3] or uint8[N, H, W], with pixels of 0 to 255"
    if not images.size:
        return f"{shape} and empty; expected images"
    if images.max() == 1:
        return f"{shape} and has no value above 1; expected pixels of 0 to 255"
    return None


def _fault_of_labels(labels: np.ndarray, count: int) -> str | None:
    """Returns what is wrong with an array of `count` labels, and what would mend it."""
    shape = f"is {labels.dtype}{list(labels.shape)}"
    expected = f"expected integers of shape [{count}]"
    if labels.shape == (count, 1):
        return f"{shape}, a column; {expected}: y[:, 0]"
    if labels.ndim == 2 and len(labels) == count and _one_hot(labels):
        return f"{shape}, one-hot rows; {expected}: y.argmax(1)"
    if labels.shape != (count,):
        return f"{shape}; {expected}, one for each image"
    if labels.dtype == bool or labels.dtype.kind == "f":
        whole = labels.dtype == bool or np.array_equal(labels, np.round(labels))
        return f"{shape}; {expected}" + (": y.astype(int)" if whole else ", and some are fractions")
    if not np.issubdtype(labels.dtype, np.integer):
        return f"{shape}; {expected}; names of classes belong in an array `classes`"
    if labels.min() < 0:
        return f"has a label below 0, {labels.min()}; expected class numbers from 0"
    return None


def _one_hot(rows: np.ndarray) -> bool:
    if rows.dtype.kind not in "biuf":
        return False
    return bool(np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all())


def _class_names(
    path: pathlib.Path,
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
    given: np.ndarray | None,
    trains: bool,
) -> list[str]:
    """The classes' names, which the labels fit; without any given the labels' numbers."""
    labels = np.concatenate([labels for _, labels in splits.values()])
    lowest, highest = int(labels.min()), int(labels.max())
    if given is None:
        if lowest > 0 and trains:
            raise ValueError(
                f"data.directory: the labels of {path} go from {lowest} to {highest}; expected "
                f"class numbers from 0: y - {lowest}, or the names of {highest + 1} classes in an "
                "array `classes`"
            )
        if highest > max(_CLASSES_AT_MOST, len(labels)):
            raise ValueError(
                f"data.directory: {path} has a label {highest} and {len(labels)} images; expected "
                "class numbers from 0, or `classes` with a name for each"
            )
        return [str(number) for number in range(highest + 1)]
    try:
        text = np.char.decode(given, "utf-8") if given.dtype.kind == "S" else given
    except UnicodeDecodeError as error:
        raise ValueError(
            f"data.directory: classes of {path} are no text in UTF-8: {error}"
        ) from None
    names = [str(name) for name in text.ravel()]
    if given.ndim != 1 or len(set(names)) < len(names):
        raise ValueError(f"data.directory: classes of {path} are not a list of different names")
    if len(names) <= highest:
        numbered = f"0 to {len(names) - 1}" + (
            f": y - {lowest}" if lowest > 0 and highest - lowest < len(names) else ""
        )
        raise ValueError(
            f"data.directory: {path} names {len(names)} classes and has a label {highest}; "
            f"expected {numbered}"
        )
    return names
