"""The content of a dataset as plain numbers: the content of `jaxmoe data`."""

import dataclasses

import numpy as np

from jaxmoe.data.dataset import Dataset
from jaxmoe.data.loading.source import ClipSource


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """One split.

    Attributes:
      clips: how many.
      clips_per_class: by class name, zeros included; none where every pixel has a class.
      pixels_per_class: the same of pixels, where every pixel has one.
      void: share of the pixels without a class, 0–1; 0 where clips have labels.
      fewest_frames: stored frames of the shortest clip.
      median_frames: of the middle one.
      most_frames: of the longest.
      held_out: whether it was held out of train, because the data does not have it.
    """

    clips: int
    clips_per_class: dict[str, int]
    pixels_per_class: dict[str, int]
    void: float
    fewest_frames: int
    median_frames: float
    most_frames: int
    held_out: bool

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no clip, or no pixel, has."""
        counts = self.pixels_per_class or self.clips_per_class
        return tuple(name for name, count in counts.items() if not count)


@dataclasses.dataclass(frozen=True)
class DatasetSummary:
    """A dataset.

    Attributes:
      name: of the dataset.
      classes: class names.
      splits: by name: train, validation, test.
      skipped: (path, reason) of clips in no split.
      padded: (path, reason) of clips that are too short and kept.
      folder: where the prepared records lie.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, SplitSummary]
    skipped: tuple[tuple[str, str], ...]
    padded: tuple[tuple[str, str], ...]
    folder: str


def describe(dataset: Dataset) -> DatasetSummary:
    """Summarises a dataset without reading a frame; `dataclasses.asdict` makes it JSON."""
    return DatasetSummary(
        name=dataset.name,
        classes=dataset.classes,
        splits={
            split: _summary(source, dataset.classes, split in dataset.held_out)
            for split, source in dataset.splits.items()
        },
        skipped=dataset.skipped,
        padded=dataset.padded,
        folder=str(dataset.folder),
    )


def _summary(source: ClipSource, classes: tuple[str, ...], held_out: bool) -> SplitSummary:
    clips, pixels, void = {}, {}, 0.0
    if source.dense:
        counts = np.sum([record.pixels for record in source.records], axis=0)
        pixels = dict(zip(classes, counts.tolist(), strict=True))
        void = 1 - counts.sum() / sum(r.height * r.width for r in source.records)
    else:
        counts = np.bincount(source.labels, minlength=len(classes))
        clips = dict(zip(classes, counts.tolist(), strict=True))
    frames = source.num_frames
    return SplitSummary(
        clips=len(source),
        clips_per_class=clips,
        pixels_per_class=pixels,
        void=float(void),
        fewest_frames=int(frames.min()),
        median_frames=float(np.median(frames)),
        most_frames=int(frames.max()),
        held_out=held_out,
    )
