"""The data sets by name: each a dataclass with its own fields and the builder that prepares it."""

import dataclasses
from typing import ClassVar

from jaxmoe.data.kinds import (
    Clips,
    Images,
    LabelledPixels,
    OfficialSplits,
    OfFiles,
    OfFolders,
    Rendered,
    Videos,
)
from jaxmoe.options import option


@dataclasses.dataclass(frozen=True)
class SyntheticActionsConfig(Rendered, Clips):
    """Rendered clips of shapes that move; the motion is the class."""

    name: ClassVar[str] = "synthetic_actions"

    classes: int = option(10, "how many of the ten motions, from the first", least=1)

    def check(self) -> None:
        """Also refuses to mirror motions."""
        super().check()
        if self.flip:
            raise ValueError(
                "data.flip: True is not accepted; expected false: mirrored, a motion to the left "
                "is one to the right"
            )

    def builder(self, progress, *, trains):
        """Returns a `SyntheticActions`."""
        from jaxmoe.data.rendered.synthetic import SyntheticActions

        own = {"frames": self.frames, "classes": self.classes}
        return SyntheticActions(**own, **self.rendering(progress))


@dataclasses.dataclass(frozen=True)
class SyntheticShapesConfig(Rendered, Images):
    """Rendered images of one shape each."""

    name: ClassVar[str] = "synthetic_shapes"

    classes: int = option(10, "how many of the ten shapes, from the first", least=1)

    def builder(self, progress, *, trains):
        """Returns a `SyntheticShapes`."""
        from jaxmoe.data.rendered.synthetic import SyntheticShapes

        return SyntheticShapes(classes=self.classes, **self.rendering(progress))


@dataclasses.dataclass(frozen=True)
class SyntheticScenesConfig(Rendered, Images):
    """Rendered images of several shapes, with a label for every pixel."""

    name: ClassVar[str] = "synthetic_scenes"
    published_classes: ClassVar[int | None] = 11  # ten shapes and the ground
    labels_pixels: ClassVar[bool] = True

    def builder(self, progress, *, trains):
        """Returns a `SyntheticScenes`."""
        from jaxmoe.data.rendered.synthetic import SyntheticScenes

        return SyntheticScenes(**self.rendering(progress))


@dataclasses.dataclass(frozen=True)
class VideoFolderConfig(OfFolders, Videos):
    """Videos in class folders, or listed by a manifest."""

    name: ClassVar[str] = "video_folder"

    def builder(self, progress, *, trains):
        """Returns a `VideoFolder`."""
        from jaxmoe.data.builders.video_builders import VideoFolder

        own = {"manifest": self.manifest, "trains": trains}
        return VideoFolder(**own, **self.listing(progress))


@dataclasses.dataclass(frozen=True)
class UCF101Config(OfficialSplits):
    """UCF-101, from its extracted archives."""

    name: ClassVar[str] = "ucf101"
    published_classes: ClassVar[int | None] = 101
    published_train: ClassVar[int | None] = 9537  # of split 1; the others have up to 1 % more

    def source_of(self, path: str) -> str:
        """Returns the group of a clip."""
        from jaxmoe.data.listing.official_splits import ucf101_source

        return ucf101_source(path)

    def builder(self, progress, *, trains):
        """Returns a `UCF101`."""
        from jaxmoe.data.builders.video_builders import UCF101

        return UCF101(split=self.split, **self.listing(progress))


@dataclasses.dataclass(frozen=True)
class HMDB51Config(OfficialSplits):
    """HMDB-51, from its extracted archives."""

    name: ClassVar[str] = "hmdb51"
    published_classes: ClassVar[int | None] = 51
    published_train: ClassVar[int | None] = 3570

    def source_of(self, path: str) -> str:
        """Returns the film of a clip."""
        from jaxmoe.data.listing.official_splits import hmdb51_source

        return hmdb51_source(path)

    def builder(self, progress, *, trains):
        """Returns an `HMDB51`."""
        from jaxmoe.data.builders.video_builders import HMDB51

        return HMDB51(split=self.split, **self.listing(progress))


@dataclasses.dataclass(frozen=True)
class ImageFolderConfig(OfFolders, Images):
    """Images in class folders, or listed by a manifest."""

    name: ClassVar[str] = "image_folder"

    def builder(self, progress, *, trains):
        """Returns an `ImageFolder`."""
        from jaxmoe.data.builders.image_builders import ImageFolder

        own = {"manifest": self.manifest, "trains": trains}
        return ImageFolder(**own, **self.listing(progress))


@dataclasses.dataclass(frozen=True)
class TinyImageNetConfig(OfFiles, Images):
    """Tiny-ImageNet, from its extracted archive."""

    name: ClassVar[str] = "tiny_imagenet"
    published_classes: ClassVar[int | None] = 200
    published_train: ClassVar[int | None] = 100_000

    def builder(self, progress, *, trains):
        """Returns a `TinyImageNet`."""
        from jaxmoe.data.builders.image_builders import TinyImageNet

        return TinyImageNet(**self.listing(progress))


@dataclasses.dataclass(frozen=True)
class NpzConfig(OfFiles, Images):
    """Arrays of images in one .npz file, which `directory` names."""

    name: ClassVar[str] = "npz"
    resized: ClassVar[bool] = False

    def builder(self, progress, *, trains):
        """Returns an `ImageArrays`."""
        from jaxmoe.data.builders.array_builders import read_npz

        return read_npz(self.directory, trains=trains, cache=self.cache, progress=progress)


@dataclasses.dataclass(frozen=True)
class CIFAR10Config(OfFiles, Images):
    """CIFAR-10, from its archive in `directory`; without one it is downloaded."""

    name: ClassVar[str] = "cifar10"
    published_classes: ClassVar[int | None] = 10
    published_train: ClassVar[int | None] = 50_000
    needs_directory: ClassVar[bool] = False
    resized: ClassVar[bool] = False

    def builder(self, progress, *, trains):
        """Returns an `ImageArrays`."""
        from jaxmoe.data.builders.cifar10 import read_cifar10

        return read_cifar10(self.directory, cache=self.cache, progress=progress)


@dataclasses.dataclass(frozen=True)
class SegmentationFolderConfig(OfFolders, LabelledPixels):
    """Images with a label map each, in folders or listed by a manifest."""

    name: ClassVar[str] = "segmentation_folder"

    def builder(self, progress, *, trains):
        """Returns a `SegmentationFolder`."""
        from jaxmoe.data.builders.segmentation_builders import SegmentationFolder

        own = {"manifest": self.manifest, "trains": trains}
        return SegmentationFolder(**own, **self.listing(progress))


@dataclasses.dataclass(frozen=True)
class CamVidConfig(LabelledPixels):
    """CamVid, as SegNet's authors arranged it."""

    name: ClassVar[str] = "camvid"
    published_classes: ClassVar[int | None] = 11
    published_train: ClassVar[int | None] = 367
    has_validation: ClassVar[bool] = True

    def builder(self, progress, *, trains):
        """Returns a `CamVid`."""
        from jaxmoe.data.builders.segmentation_builders import CamVid

        return CamVid(**self.listing(progress))


@dataclasses.dataclass(frozen=True)
class CityscapesConfig(LabelledPixels):
    """Cityscapes, from its extracted archives."""

    name: ClassVar[str] = "cityscapes"
    published_classes: ClassVar[int | None] = 19
    published_train: ClassVar[int | None] = 2975

    def source_of(self, path: str) -> str:
        """Returns the city of an image."""
        return path.split("/")[-2]

    def builder(self, progress, *, trains):
        """Returns a `Cityscapes`."""
        from jaxmoe.data.builders.segmentation_builders import Cityscapes

        return Cityscapes(**self.listing(progress))


@dataclasses.dataclass(frozen=True)
class A2D2Config(LabelledPixels):
    """A2D2, from its extracted archive."""

    name: ClassVar[str] = "a2d2"
    published_classes: ClassVar[int | None] = 11

    def source_of(self, path: str) -> str:
        """Returns the drive of an image."""
        return path.split("/")[0]

    def builder(self, progress, *, trains):
        """Returns an `A2D2`."""
        from jaxmoe.data.builders.segmentation_builders import A2D2

        return A2D2(**self.listing(progress))
