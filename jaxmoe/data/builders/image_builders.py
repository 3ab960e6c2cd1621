"""TFDS builders of datasets of image files: `ImageFolder`, `TinyImageNet`.

An image is stored as a clip of one frame, without loss.
"""

import os
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jaxmoe.data.builders.clip_builder import (
    Dense,
    EncodedClip,
    PlannedClip,
    Progress,
)
from jaxmoe.data.builders.listed_builder import FolderBuilder, ListedBuilder
from jaxmoe.data.decoding.still import read_image
from jaxmoe.data.decoding.unusable import UnusableClipError
from jaxmoe.data.listing.listing import require_directory
from jaxmoe.data.listing.tiny_imagenet import list_tiny_imagenet

_HALF = 2**15  # of the range of 16 bits


class Images(ListedBuilder, skip_registration=True):
    """Decodes image files, as clips of one frame; says where those of 16 bits are dark."""

    CODEC = "png"
    VERSION = tfds.core.Version("1.1.0")  # 1.1.0: transparency, 16 bits, one picture in a file

    def read_file(self, file: pathlib.Path, resolution: int) -> np.ndarray:
        """Decodes the image as a clip of one frame."""
        return read_image(file, resolution, self.brightest)[None]

    def render(
        self, clips: list[PlannedClip]
    ) -> Iterator[np.ndarray | EncodedClip | Dense | UnusableClipError]:
        """Decodes the images in order."""
        self.brightest: list[int] = []  # values of those with 16 bits
        yield from super().render(clips)
        most = max(self.brightest, default=_HALF)
        if most < _HALF:
            self.info.metadata["notes"].append(
                f"{len(self.brightest)} pictures of 16 bits have no value above {most} of 65535: "
                f"they are dark, at most {most >> 8} of 255; scale them to the whole range"
            )


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
