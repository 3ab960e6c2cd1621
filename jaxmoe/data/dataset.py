"""`load_dataset`: a dataset by name, prepared if need be, as three splits with random access."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from jaxmoe.data.domains import DomainCue
from jaxmoe.data.films import film_of, shared_films
from jaxmoe.data.holdout import hold_out
from jaxmoe.data.listing import SPLITS, nearest
from jaxmoe.data.official_splits import hmdb51_source, ucf101_source
from jaxmoe.data.source import ClipRecord, ClipSource

VIDEO_DATASETS = ("synthetic_actions", "video_folder", "ucf101", "hmdb51")
SEGMENTATION_DATASETS = (
    *("synthetic_scenes", "segmentation_folder"),
    *("camvid", "cityscapes", "a2d2"),
)
IMAGE_DATASETS = (
    *("synthetic_shapes", "image_folder", "npz", "cifar10", "tiny_imagenet"),
    *SEGMENTATION_DATASETS,
)
DATASETS = VIDEO_DATASETS + IMAGE_DATASETS
ARRAY_DATASETS = ("npz", "cifar10")  # whose images have a size of their own
RENDERED_DATASETS = ("synthetic_actions", "synthetic_shapes", "synthetic_scenes")
_FEWER_CLASSES = ("synthetic_actions", "synthetic_shapes")

# Shorter side of the stored frames where the caller names none.
_RESOLUTIONS = {
    **dict.fromkeys(VIDEO_DATASETS, 64),
    **dict.fromkeys(IMAGE_DATASETS, 32),
    **dict.fromkeys(SEGMENTATION_DATASETS, 180),
    **dict.fromkeys(RENDERED_DATASETS, 32),
}

# What film or place a clip is of, where names tell: its clips are not told apart by a split.
_SOURCES = {
    **dict.fromkeys(("video_folder", "image_folder"), lambda path: film_of(path) or path),
    "ucf101": ucf101_source,
    "hmdb51": hmdb51_source,
    "cityscapes": lambda path: path.split("/")[-2],  # a city
    "a2d2": lambda path: path.split("/")[0],  # a drive
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits, and what was left out of them.

    Attributes:
      name: one of `DATASETS`.
      classes: class names; a label is a place in it.
      train: clips to train on.
      validation: clips to choose by; without any in the data, held out of train.
      test: clips to judge by; without any in the data, held out of train first.
      skipped: (path, reason) of every clip that is in no split.
      padded: (path, reason) of every clip too short for `frames`, kept by repeating its last frame.
      held_out: the splits that the data does not have and were held out of train.
      folder: where the prepared records lie.
      notes: what else a reader of results must know, a line each.
      rows: by a clip's path what else is known of it, such as its row of a manifest.
    """

    name: str
    classes: tuple[str, ...]
    train: ClipSource
    validation: ClipSource
    test: ClipSource
    skipped: tuple[tuple[str, str], ...]
    padded: tuple[tuple[str, str], ...]
    held_out: tuple[str, ...]
    folder: pathlib.Path
    notes: tuple[str, ...] = ()
    rows: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict, repr=False)

    def columns(self, source: ClipSource) -> dict[str, dict[int, str]]:
        """What else is known of a split's clips: by column, and by a clip's index."""
        known = {record.index: self.rows.get(record.path, {}) for record in source.records}
        names = dict.fromkeys(name for row in known.values() for name in row)
        return {name: {index: row.get(name, "") for index, row in known.items()} for name in names}

    @property
    def splits(self) -> dict[str, ClipSource]:
        """The three splits by name."""
        return {split: getattr(self, split) for split in SPLITS}

    @property
    def counts(self) -> dict[str, int]:
        """Clips per split."""
        return {split: len(source) for split, source in self.splits.items()}


def load_dataset(
    name: str,
    *,
    directory: str | os.PathLike | None = None,
    manifest: str | os.PathLike | None = None,
    subset: str | None = None,
    split: int = 1,
    resolution: int | None = None,
    frames: int = 16,
    stride: int | None = None,
    short: Literal["pad", "skip"] = "pad",
    validation_fraction: float = 0.125,
    test_fraction: float = 0.2,
    seed: int = 0,
    cache: str | os.PathLike | None = None,
    progress: Callable[[int, int], None] | None = None,
    train_clips: int = 1000,
    validation_clips: int = 200,
    test_clips: int = 300,
    classes: int = 10,
    domains: int = 1,
    domain_cue: DomainCue = "tint",
    trains: bool = True,
) -> Dataset:
    """Loads a dataset; the first time its files are decoded, resized and stored in the cache.

    Unchanged input is not prepared again; a changed file, list, manifest or resolution is. Files
    that cannot be used are named in `skipped` every time, not only when they were found.

    Args:
      name: one of `DATASETS`.
      directory: where the files are; `npz`'s is the file; `cifar10`'s is the published archive or
        its folder, and without one it is downloaded; rendered ones need none.
      manifest: of the three `…_folder` only: another CSV file with the columns `path,label,split`,
        or `path,label_map,split` for segmentation.
      subset: `column=value`, or `column=value,value`: train on the examples alone whose column of
        the manifest, or of the data set's own, has such a value; validation and test stay whole.
      split: `ucf101` and `hmdb51` only: official split 1, 2 or 3.
      resolution: shorter side of the stored frames in pixels, or height and width of synthetic
        clips and images; None is 64 for videos of files, 180 for segmentation of files and 32 else.
        `npz` and `cifar10` have their own.
      frames: frames that a clip should have: synthetic clips have as many, a video with fewer is
        too short. Images have one.
      stride: frames between two of a clip, so that a video needs (frames − 1) · stride + 1; None is
        as many as it has. At a variable rate it counts in frames' mean time.
      short: what becomes of a video that is too short: `pad` repeats its last frame, `skip`
        leaves it out; both are reported.
      validation_fraction: share of train held out where the data has no validation split.
      test_fraction: share of train held out where the data has no test split.
      seed: of what is held out, and of the synthetic clips; it is part of the data, so keep it
        apart from the seed of a training run.
      cache: folder for prepared data; None is `$JAXMOE_CACHE`, else `~/.cache/jaxmoe/datasets`.
      progress: called as `progress(done, total)` while videos are prepared.
      train_clips: of rendered datasets: clips or images for training.
      validation_clips: of rendered datasets.
      test_clips: of rendered datasets.
      classes: of `synthetic_actions` and `synthetic_shapes`: how many of the motions or shapes.
      domains: of rendered datasets: in each a motion or a shape means another class, at most as
        many as there are; the column `domain` tells them.
      domain_cue: what of a clip tells its domain, `tint` or faint `stripes` (`data.domains`).
      trains: False for clips to judge by alone: there need be none to train on, and `test` is the
        test split, or all there is where the data has one split under another name.

    Returns:
      A `Dataset` whose splits all have at least one clip; its test split alone without `trains`.

    Raises:
      ValueError, FileNotFoundError: bad input; one line that names the field.
      OSError: the cache cannot be written.
    """
    if name not in DATASETS:
        raise ValueError(
            f"data.name: unknown dataset {name!r}; accepted are "
            f"{', '.join(DATASETS)}{nearest(name, DATASETS)}"
        )
    _check(short, frames, seed, validation_fraction, test_fraction)
    folders = ("video_folder", "image_folder", "segmentation_folder")
    if manifest and name not in folders:
        raise ValueError(f"data.manifest: {manifest}; only {' and '.join(folders)} take one")
    if directory is not None and name in RENDERED_DATASETS:
        raise ValueError(
            f"data.directory: {directory}, but data.name = {name} is rendered and reads no files; "
            "expected none, or a data.name such as video_folder"
        )
    if domains != 1 and name not in RENDERED_DATASETS:
        raise ValueError(
            f"data.domains: {domains}; only {' and '.join(RENDERED_DATASETS)} have them"
        )
    if classes != 10 and name not in _FEWER_CLASSES:
        raise ValueError(f"data.classes: {classes}; only {' and '.join(_FEWER_CLASSES)} have it")
    if domains == 1 and domain_cue != "tint":
        raise ValueError(f"data.domain_cue: {domain_cue}; expected data.domains above 1 with it")
    from jaxmoe.data import image_builders, segmentation_builders, video_builders
    from jaxmoe.data.array_builders import read_npz
    from jaxmoe.data.cifar10 import read_cifar10
    from jaxmoe.data.prepare import prepare
    from jaxmoe.data.synthetic import SyntheticActions, SyntheticScenes, SyntheticShapes

    shared = {"cache": cache, "progress": progress}
    meaning = {"domains": domains, "domain_cue": domain_cue}
    folder_fields = {"manifest": manifest, "trains": trains}
    asked, resolution = resolution, _RESOLUTIONS[name] if resolution is None else resolution
    rendered = {
        "size": resolution,
        "train": train_clips,
        "validation": validation_clips,
        "test": test_clips,
        "seed": seed,
        **shared,
    }
    listed = {
        "directory": directory,
        "resolution": resolution,
        **shared,
    }
    match name:
        case "synthetic_actions":
            builder = SyntheticActions(frames=frames, classes=classes, **meaning, **rendered)
        case "synthetic_shapes":
            builder = SyntheticShapes(classes=classes, **meaning, **rendered)
        case "synthetic_scenes":
            builder = SyntheticScenes(**meaning, **rendered)
        case "video_folder":
            builder = video_builders.VideoFolder(**folder_fields, **listed)
        case "ucf101":
            builder = video_builders.UCF101(split=split, **listed)
        case "hmdb51":
            builder = video_builders.HMDB51(split=split, **listed)
        case "image_folder":
            builder = image_builders.ImageFolder(**folder_fields, **listed)
        case "tiny_imagenet":
            builder = image_builders.TinyImageNet(**listed)
        case "segmentation_folder":
            builder = segmentation_builders.SegmentationFolder(**folder_fields, **listed)
        case "camvid":
            builder = segmentation_builders.CamVid(**listed)
        case "cityscapes":
            builder = segmentation_builders.Cityscapes(**listed)
        case "a2d2":
            builder = segmentation_builders.A2D2(**listed)
        case "npz":
            builder = read_npz(directory, trains=trains, **shared)
        case "cifar10":
            builder = read_cifar10(directory, **shared)
    if name in IMAGE_DATASETS:
        frames = 1
    needed = (frames - 1) * (stride or 1) + 1
    folder = prepare(builder)
    fractions = (test_fraction, validation_fraction) if trains else None
    dataset = _open(name, folder, needed, short, seed, fractions)
    dataset = dataclasses.replace(dataset, rows=builder.columns)
    if name in ARRAY_DATASETS and asked not in (None, min(dataset.test.smallest)):
        raise ValueError(
            f"data.resolution: {asked}; {name} is not resized, its images have "
            f"{min(dataset.test.smallest)} pixels: leave it out"
        )
    return dataset if subset is None else _take_subset(dataset, subset)


def _check(short: str, frames: int, seed: int, validation: float, test: float) -> None:
    if short not in ("pad", "skip"):
        raise ValueError(f"data.short: {short!r}; accepted are pad, skip")
    if frames < 1:
        raise ValueError(f"data.frames: {frames}; it is a number of frames, at least 1")
    if seed < 0:
        raise ValueError(f"data.seed: {seed}; a seed is at least 0")
    for name, value in (("validation_fraction", validation), ("test_fraction", test)):
        if not 0 < value < 1:
            raise ValueError(f"data.{name}: {value}; accepted is a share between 0 and 1")


def _open(
    name: str,
    folder: pathlib.Path,
    needed: int,
    short: str,
    seed: int,
    fractions: tuple[float, float] | None,
) -> Dataset:
    """The splits of prepared records; without `fractions` the test split alone."""
    import tensorflow_datasets as tfds

    metadata = tfds.builder_from_directory(folder).info.metadata
    skipped = [(path, reason) for path, reason in metadata["skipped"]]
    padded: list[tuple[str, str]] = []
    splits: dict[str, tuple[ClipRecord, ...]] = {}
    for split, rows in metadata["clips"].items():
        records = [ClipRecord(position, split, *row) for position, row in enumerate(rows)]
        too_short = [record for record in records if record.num_frames < needed]
        reasons = [
            (r.path, f"{r.num_frames} frames, fewer than the {needed} of a clip") for r in too_short
        ]
        if short == "skip":
            skipped.extend(reasons)
            records = [record for record in records if record.num_frames >= needed]
        else:
            padded.extend(reasons)
        splits[split] = tuple(records)
    if fractions is None:
        splits = {"train": (), "validation": (), "test": _to_judge(splits)}
    held_out = tuple(split for split in ("test", "validation") if split not in splits)
    for split, fraction in zip(("test", "validation"), fractions or (0.0, 0.0), strict=True):
        if split in held_out:
            # Different seeds, or both would be drawn from the same end of a class.
            splits["train"], splits[split] = hold_out(
                splits["train"], fraction, 2 * seed + (split == "test"), _SOURCES.get(name)
            )
    for split, records in splits.items():
        if not records and (fractions or split == "test"):
            raise ValueError(
                f"data.directory: split {split!r} has no usable clip; {len(skipped)} were skipped "
                f"and {', '.join(held_out) or 'nothing'} was held out of train"
            )
    trained = {record.label for record in splits["train"]}
    for record in itertools.chain(*splits.values()):
        if record.label not in trained and fractions:
            raise ValueError(
                f"data.directory: label {metadata['classes'][record.label]!r} of {record.path} has "
                f"no usable clip in train; {len(skipped)} were skipped"
            )
    codec = metadata["codec"]
    still, dense = name in IMAGE_DATASETS, metadata.get("dense", False)
    kinds = still, dense, name in ARRAY_DATASETS
    sources = {split: ClipSource(folder, codec, splits[split], *kinds) for split in SPLITS}
    return Dataset(
        name=name,
        classes=tuple(metadata["classes"]),
        skipped=tuple(skipped),
        padded=tuple(padded),
        held_out=held_out,
        folder=folder,
        # Records that were prepared before there were notes have none.
        notes=(*metadata.get("notes", ()), *_notes(splits)),
        **sources,
    )


def _notes(splits: Mapping[str, Sequence[ClipRecord]]) -> tuple[str, ...]:
    shared = shared_films([*splits["train"], *splits["validation"]], splits["test"])
    if not shared:
        return ()
    what = "film has" if len(shared) == 1 else "films have"
    return (
        f"{len(shared)} {what} clips in train or validation and in test, by their names, such as "
        f"{shared[0]}: the test is easier than one of new films",
    )


def _to_judge(splits: Mapping[str, tuple[ClipRecord, ...]]) -> tuple[ClipRecord, ...]:
    """The records of the test split, or of the only one."""
    if "test" not in splits and len(splits) > 1:
        raise ValueError(
            f"data.directory: splits {' and '.join(splits)} and none called test; expected one of "
            "that name, or a single split"
        )
    return splits["test"] if "test" in splits else next(iter(splits.values()))


def _take_subset(dataset: Dataset, subset: str) -> Dataset:
    """The data set with a part of its training split."""
    name, _, wanted = subset.partition("=")
    if not (name and wanted):
        raise ValueError(f"data.subset: {subset!r}; expected column=value or column=value,value")
    known = dict.fromkeys(column for row in dataset.rows.values() for column in row)
    if name not in known:
        raise ValueError(
            f"data.subset: no column {name!r} in {dataset.name}; accepted are "
            f"{', '.join(known) or 'none, it has no columns'}{nearest(name, known)}"
        )
    train = dataset.train
    values = [dataset.rows[record.path].get(name, "") for record in train.records]
    for value in wanted.split(","):
        if value not in values:
            found = sorted(set(values))
            raise ValueError(
                f"data.subset: no training example has {name} {value!r}; accepted are "
                f"{', '.join(found[:10])}{nearest(value, found)}"
            )
    kept = [
        record
        for record, value in zip(train.records, values, strict=True)
        if value in wanted.split(",")
    ]
    return dataclasses.replace(dataset, train=train.take(kept))
