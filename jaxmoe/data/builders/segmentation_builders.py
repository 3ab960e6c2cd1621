"""TFDS builders of images with label maps: `SegmentationFolder`, `CamVid`, `Cityscapes`, `A2D2`."""

import os
import pathlib
from collections.abc import Callable

from jaxmoe.data.builders.clip_builder import Dense, Progress
from jaxmoe.data.builders.image_builders import Images
from jaxmoe.data.builders.listed_builder import find_manifest
from jaxmoe.data.decoding.still import read_turned
from jaxmoe.data.listing.label_folders import (
    LabelledFiles,
    list_a2d2,
    list_camvid,
    list_cityscapes,
    list_pairs,
)
from jaxmoe.data.listing.listing import ListedFile, require_directory


class _LabelledImages(Images, skip_registration=True):
    DENSE = True

    def __init__(self, files: LabelledFiles, **fields):
        self._read_label_map = files.read_label_map
        super().__init__(files.listing, table=sorted(files.table.items()), **fields)

    def read(self, listed: ListedFile) -> Dense:
        """The image as a clip of one frame, and its label map."""
        image, turned = read_turned(listed.file, self.resolution, self.brightest)
        return Dense(image[None], self._read_label_map(listed.label_map, image.shape[:2], turned))


class SegmentationFolder(_LabelledImages, skip_registration=True):
    """Pairs of images and label maps in folders, or listed by a manifest; see `list_pairs`.

    Args of the constructor and errors as in `FolderBuilder`.
    """

    name = "segmentation_folder"

    def __init__(
        self,
        *,
        directory: str | os.PathLike,
        manifest: str | os.PathLike | None = None,
        resolution: int,
        cache: str | os.PathLike | None = None,
        progress: Progress | None = None,
        trains: bool = True,
    ):
        root = require_directory(directory)
        files = list_pairs(root, find_manifest(root, manifest), trains=trains)
        super().__init__(files, resolution=resolution, cache=cache, progress=progress)


class _Published(_LabelledImages, skip_registration=True):
    """A data set whose archive has a layout of its own."""

    list_files: Callable[[pathlib.Path], LabelledFiles]

    def __init__(
        self,
        *,
        directory: str | os.PathLike,
        resolution: int,
        cache: str | os.PathLike | None = None,
        progress: Progress | None = None,
    ):
        files = self.list_files(require_directory(directory))
        super().__init__(files, resolution=resolution, cache=cache, progress=progress)


class CamVid(_Published, skip_registration=True):
    """CamVid with 11 classes, from its extracted archive; see `list_camvid`.

    Args of the constructor and errors as in `FolderBuilder`, without `manifest`.
    """

    name = "camvid"
    list_files = staticmethod(list_camvid)


class Cityscapes(_Published, skip_registration=True):
    """Cityscapes with 19 classes, from its extracted archives; see `list_cityscapes`.

    Args of the constructor and errors as in `CamVid`.
    """

    name = "cityscapes"
    list_files = staticmethod(list_cityscapes)


class A2D2(_Published, skip_registration=True):
    """A2D2 with 11 classes, from its extracted archive; see `list_a2d2`.

    Args of the constructor and errors as in `CamVid`.
    """

    name = "a2d2"
    list_files = staticmethod(list_a2d2)
