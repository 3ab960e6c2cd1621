"""TFDS builders of datasets of image files: `ImageFolder`, `TinyImageNet`.

An image is stored as a clip of one frame, without loss.
"""

import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from jaxmoe.data.clip_builder import Progress
from jaxmoe.data.listed_builder import FolderBuilder, ListedBuilder
from jaxmoe.data.listing import require_directory
from jaxmoe.data.still import read_image
from jaxmoe.data.tiny_imagenet import list_tiny_imagenet


class Images(ListedBuilder, skip_registration=True):
    """Decodes image files, as clips of one frame."""

    CODEC = "png"
    VERSION = tfds.core.Version("1.1.0")  # 1.1.0: transparency, 16 bits, one picture in a file

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
