"""The kinds of data sets: what each has for fields, what it holds, and how it is prepared.

A data set of one's own is a subclass of `Clips` or `Images` in `DATASETS`. Imports no JAX.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxmoe.choices import DomainCue
from jaxmoe.options import option
from jaxmoe.registry import Entry, Registry

if TYPE_CHECKING:
    from jaxmoe.data.builders.clip_builder import ClipBuilder, Progress
    from jaxmoe.data.loading.augmentation import Augmentation

_SETS = "jaxmoe.data.sets"
DATASETS = Registry(
    "data",
    "DATASETS",
    {
        "synthetic_actions": f"{_SETS}:SyntheticActionsConfig",
        "video_folder": f"{_SETS}:VideoFolderConfig",
        "ucf101": f"{_SETS}:UCF101Config",
        "hmdb51": f"{_SETS}:HMDB51Config",
        "synthetic_shapes": f"{_SETS}:SyntheticShapesConfig",
        "image_folder": f"{_SETS}:ImageFolderConfig",
        "npz": f"{_SETS}:NpzConfig",
        "cifar10": f"{_SETS}:CIFAR10Config",
        "tiny_imagenet": f"{_SETS}:TinyImageNetConfig",
        "synthetic_scenes": f"{_SETS}:SyntheticScenesConfig",
        "segmentation_folder": f"{_SETS}:SegmentationFolderConfig",
        "camvid": f"{_SETS}:CamVidConfig",
        "cityscapes": f"{_SETS}:CityscapesConfig",
        "a2d2": f"{_SETS}:A2D2Config",
    },
)


@dataclasses.dataclass(frozen=True)
class DataConfig(Entry):
    """Where clips or images come from and how they are cut.

    Attributes:
      holds_clips: its examples have an axis of time.
      labels_pixels: every pixel has a label; else an example has one.
      needs_directory: nothing can be read without `directory`.
      resized: its examples are stored at `resolution`; else they have a size of their own.
      published_classes: its classes where they are known before it is read; else None.
      published_train: its training examples as published; None where that is not known.
      has_validation: its publishers named a validation split, so that none is held out of train.
    """

    registry: ClassVar[Registry] = DATASETS
    holds_clips: ClassVar[bool]
    labels_pixels: ClassVar[bool] = False
    needs_directory: ClassVar[bool] = False
    resized: ClassVar[bool] = True
    published_classes: ClassVar[int | None] = None
    published_train: ClassVar[int | None] = None
    has_validation: ClassVar[bool] = False
    # Values for kinds that lack these fields; not annotated, so that they are no fields here.
    directory = manifest = stride = folds = None
    frames, padding, short_videos, speed_jitter = 1, 0, "pad", 0.0

    resolution: int | None = option(
        None, "shorter side of the stored frames in pixels; none is the data set's own", least=1
    )
    height: int = option(32, "H of what a model sees, and W, in pixels", least=1)
    width: int | None = option(None, "W where it is not H, in pixels", least=1)
    flip: bool = option(False, "mirror training examples at random")
    crop_scale: float | None = option(
        None,
        "least share of the area that a training crop takes, to be resized; none resizes nothing",
        least=0.01,
        most=1,
    )
    color_jitter: float = option(
        0.0,
        "training examples' brightness, contrast and saturation change by up to this share",
        least=0,
        most=1,
    )
    erasing: float = option(
        0.0, "probability that noise fills a box of a training example", least=0, most=1
    )
    subset: str | None = option(None, "column=value[,value]: train on these examples alone")
    validation_fraction: float = option(
        0.125, "share of train held out where there is no validation split"
    )
    test_fraction: float = option(0.2, "share of train held out where there is no test split")
    seed: int = option(0, "of what is held out, and rendered; apart from the run's", least=0)
    workers: int = option(0, "loader processes; 0 is threads of this one", least=0)
    cache: str | None = option(
        None, "where prepared data is kept; none is $JAXMOE_CACHE or ~/.cache/jaxmoe/datasets"
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that a model sees: `[T, H, W, 3]`, of images `[H, W, 3]`."""
        image = (self.height, self.height if self.width is None else self.width, 3)
        return (self.frames, *image) if self.holds_clips else image

    @property
    def augmentation(self) -> "Augmentation":
        """How training examples are changed at random."""
        from jaxmoe.data.loading.augmentation import Augmentation  # NumPy, which help needs not

        names = (field.name for field in dataclasses.fields(Augmentation))
        return Augmentation(**{name: getattr(self, name) for name in names})

    @property
    def stored(self) -> int:
        """Shorter side of the stored frames, in pixels."""
        return self.resolution or self.default_resolution

    @property
    def default_resolution(self) -> int:
        """Shorter side of the stored frames where `resolution` is None, in pixels."""
        return 32

    @property
    def clip_span(self) -> int:
        """How many frames a video must have for one clip."""
        return (self.frames - 1) * (self.stride or 1) + 1

    @property
    def expected_classes(self) -> int | None:
        """How many classes it has; None where nothing tells before it is read."""
        return self.published_classes

    @property
    def expected_train(self) -> int | None:
        """About how many examples it trains on; None where nothing tells before it is read."""
        if self.published_train is None or self.subset is not None:
            return None
        left = 1 if self.has_validation else 1 - self.validation_fraction
        return round(self.published_train * left)

    def builder(self, progress: "Progress | None", *, trains: bool) -> "ClipBuilder":
        """Returns the TFDS builder that prepares it.

        Args:
          progress: called with (examples done, examples in all).
          trains: False where there need be nothing to train on.

        Raises:
          ValueError, FileNotFoundError: one line that names the field.
        """
        raise NotImplementedError

    def source_of(self, path: str) -> str:
        """Returns the film or place that a path is of, whose clips a split keeps together."""
        return path

    def check(self) -> None:
        """Refuses values that do not fit together.

        Raises:
          ValueError: one line that names the field.
        """
        if self.needs_directory and not self.directory:
            raise ValueError(
                f"data.directory: {self.directory} is not accepted; expected the folder or file "
                "with the data"
            )
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(
                    f"data.{name}: {value} is not accepted; expected at least 0 and below 1"
                )


@dataclasses.dataclass(frozen=True)
class Clips(DataConfig):
    """Clips of videos."""

    holds_clips: ClassVar[bool] = True

    frames: int = option(16, "of a clip", least=1)
    stride: int | None = option(
        None, "frames between two of a clip; none spreads them over the video", least=1
    )
    short_videos: Literal["pad", "skip"] = option(
        "pad", "what becomes of a video with fewer frames than a clip"
    )
    speed_jitter: float = option(
        0.0, "the stride changes by up to this share in training", least=0, most=0.9
    )

    def check(self) -> None:
        """Also refuses another speed of what has none."""
        super().check()
        if self.speed_jitter and self.stride is None:
            raise ValueError(
                f"data.speed_jitter: {self.speed_jitter} is not accepted; expected data.stride "
                "with it: frames that are spread over a whole video are random ones already"
            )


@dataclasses.dataclass(frozen=True)
class Images(DataConfig):
    """Images."""

    holds_clips: ClassVar[bool] = False

    padding: int = option(
        0, "black pixels around training images before a crop; 4 is usual for CIFAR", least=0
    )


@dataclasses.dataclass(frozen=True)
class OfFiles(DataConfig):
    """Data that is read from files."""

    needs_directory: ClassVar[bool] = True

    directory: str | None = option(None, "the folder or file with the data")

    def listing(self, progress: "Progress | None") -> dict:
        """Returns what the builders of files take."""
        return {
            "directory": self.directory,
            "resolution": self.stored,
            "cache": self.cache,
            "progress": progress,
        }


@dataclasses.dataclass(frozen=True)
class OfFolders(OfFiles):
    """Data in class folders, or listed by a manifest."""

    manifest: str | None = option(None, "another manifest.csv, for other splits of the same files")
    folds: int | None = option(
        None,
        "how many folds whole groups are dealt into; splits that folders or a manifest name are "
        "then ignored",
        least=2,
    )
    fold: int = option(0, "which fold is the test split, from 0", least=0)
    group_pattern: str | None = option(
        None,
        r"regular expression; the text of a path that it finds is its group, as seq\d+ finds; none "
        "is of folds the manifest's column group, else the film that a name tells, else the file",
    )

    def source_of(self, path: str) -> str:
        """Returns the group that the pattern finds, else the film that a name tells, or the file.

        Raises:
          ValueError: the pattern finds nothing.
        """
        if self.group_pattern is None:
            from jaxmoe.data.listing.films import film_of  # imports NumPy, and help needs none

            return film_of(path) or path
        found = re.search(self.group_pattern, path)
        if found is None:
            raise ValueError(
                f"data.group_pattern: {self.group_pattern!r} is nowhere in {path}; expected a "
                "pattern that every file's path has"
            )
        return found[0]

    def group_of(self, path: str, row: Mapping[str, str]) -> str:
        """Returns the group that folds keep together: `source_of`, or the column `group`.

        Args:
          path: of a clip or image.
          row: its further columns in the manifest. `group_pattern` goes before the column.
        """
        own = row.get("group") if self.group_pattern is None else None
        return own or self.source_of(path)

    def check(self) -> None:
        """Also refuses a fold that is none, and a pattern that is none."""
        super().check()
        if self.folds is None and self.fold:
            raise ValueError(f"data.fold: {self.fold} is not accepted; expected data.folds with it")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(
                f"data.fold: {self.fold} is not accepted; expected below data.folds, {self.folds}"
            )
        try:
            re.compile(self.group_pattern or "")
        except re.error as error:
            raise ValueError(
                f"data.group_pattern: {self.group_pattern!r} is not accepted ({error}); expected a "
                "regular expression"
            ) from None


@dataclasses.dataclass(frozen=True)
class Rendered(DataConfig):
    """Data that is rendered, and needs no files."""

    train_clips: int = option(1000, "rendered for training", least=1)
    validation_clips: int = option(100, "rendered to choose by", least=1)
    test_clips: int = option(200, "rendered to judge by", least=1)
    domains: int = option(1, "in which motions and shapes mean other classes", least=1)
    domain_cue: DomainCue = option("tint", "what tells a domain; stripes are faint, 4/255")

    @property
    def default_resolution(self) -> int:
        """Rendered at the size that a model sees."""
        return self.height

    @property
    def expected_classes(self) -> int | None:
        """How many classes are rendered."""
        return getattr(self, "classes", self.published_classes)

    @property
    def expected_train(self) -> int | None:
        """How many examples are rendered to train on."""
        return None if self.subset is not None else self.train_clips

    def check(self) -> None:
        """Also refuses to change at random what tells the domain."""
        super().check()
        if self.domain_cue == "stripes" and (self.flip or self.crop_scale is not None):
            field, value = ("flip", "false") if self.flip else ("crop_scale", "none")
            raise ValueError(
                f"data.{field}: {getattr(self, field)} is not accepted; expected {value}: "
                "mirrored or resized stripes are another domain's"
            )
        if self.domain_cue == "tint" and self.domains > 1 and self.color_jitter:
            raise ValueError(
                f"data.color_jitter: {self.color_jitter} is not accepted; expected 0: another "
                "colour is another domain's"
            )
        if self.domains == 1 and self.domain_cue != "tint":
            raise ValueError(
                f"data.domain_cue: {self.domain_cue}; expected data.domains above 1 with it"
            )

    def rendering(self, progress: "Progress | None") -> dict:
        """Returns what the builders of rendered data take."""
        return {
            "size": self.stored,
            "train": self.train_clips,
            "validation": self.validation_clips,
            "test": self.test_clips,
            "seed": self.seed,
            "domains": self.domains,
            "domain_cue": self.domain_cue,
            "cache": self.cache,
            "progress": progress,
        }


@dataclasses.dataclass(frozen=True)
class Videos(OfFiles, Clips):
    """Clips of video files."""

    @property
    def default_resolution(self) -> int:
        """Enough for crops of 56 pixels."""
        return 64


@dataclasses.dataclass(frozen=True)
class OfficialSplits(Videos):
    """Videos whose archives name three splits."""

    split: int = option(1, "official split", least=1, most=3)


@dataclasses.dataclass(frozen=True)
class LabelledPixels(OfFiles, Images):
    """Images from files in which every pixel has a label."""

    labels_pixels: ClassVar[bool] = True

    @property
    def default_resolution(self) -> int:
        """Half of what CamVid is usually used at."""
        return 180
