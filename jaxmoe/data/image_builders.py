"""TFDS builders of datasets of image files: `ImageFolder`, `TinyImageNet`.

An image is stored as a clip of one frame, without loss.
"""

import os
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from jaxmoe.data.clip_builder import Progress, UnusableClipError
from jaxmoe.data.listed_builder import FolderBuilder, ListedBuilder
from jaxmoe.data.listing import require_directory
from jaxmoe.data.tiny_imagenet import list_tiny_imagenet


class Images(ListedBuilder, skip_registration=True):
    """Decodes image files, as clips of one frame."""

    CODEC = "png"

    def read_file(self, file: pathlib.Path, resolution: int) -> np.ndarray:
        """Decodes the image as a clip of one frame."""
        return read_image(file, resolution)[None]


class ImageFolder(Images, FolderBuilder, skip_registration=True):
    """Images in class folders, or listed by a manifest; see `FolderBuilder`."""

    name = "image_folder"


class TinyImageNet(Images, skip_registration=True):
    """Tiny-ImageNet from its extracted archive; its `val` is the test split.

    Args of the constructor and errors as in `FolderBuilder`, without `manifest`.
    """

    name = "tiny_imagenet"

    def __init__(
        self,
        *,
        directory: str | os.PathLike,
        resolution: int,
        cache: str | os.PathLike | None = None,
        progress: Progress | None = None,
    ):
        listing = list_tiny_imagenet(require_directory(directory))
        super().__init__(listing, resolution=resolution, cache=cache, progress=progress)


def read_image(file: pathlib.Path, resolution: int) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes an image to RGB `uint8[H, W, 3]`, upright, the shorter side `resolution`.

    Raises:
      UnusableClipError: why it cannot be, in one line.
    """
    if not file.is_file():
        raise UnusableClipError("no such file")
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    # PIL's decoders raise what they like of a broken file.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableClipError(f"cannot be decoded: {reason}") from error
    width, height = upright.size
    if min(width, height) != resolution:
        scale = resolution / min(width, height)
        size = (max(resolution, round(width * scale)), max(resolution, round(height * scale)))
        upright = upright.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(upright)
