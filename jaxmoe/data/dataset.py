"""`load_dataset`: a dataset by name, prepared if need be, as three splits with random access."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxmoe.data.kinds import DATASETS, DataConfig
from jaxmoe.data.listing.films import shared_films
from jaxmoe.data.listing.folds import deal_folds, split_by_fold
from jaxmoe.data.listing.holdout import hold_out
from jaxmoe.data.listing.listing import SPLITS
from jaxmoe.data.loading.source import ClipRecord, ClipSource
from jaxmoe.options import check_ranges
from jaxmoe.overrides import check_field_types
from jaxmoe.registry import with_fields
from jaxmoe.spelling import ALIKE, did_you_mean


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
        """Returns what else is known of a split's clips: by column, and by a clip's index."""
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
    name: DataConfig | str,
    *,
    progress: Callable[[int, int], None] | None = None,
    trains: bool = True,
    **fields: Any,
) -> Dataset:
    """Loads a dataset; the first time its files are decoded, resized and stored in the cache.

    Unchanged input is not prepared again; a changed file, list, manifest or resolution is. Files
    that cannot be used are named in `skipped` every time, not only when they were found.

    Args:
      name: of `DATASETS`, or a configuration of it.
      progress: called as `progress(done, total)` while videos are prepared.
      trains: False for clips to judge by alone: there need be none to train on, and `test` is the
        test split, or all there is where the data has one split under another name.
      **fields: of the configuration, such as `directory`; paths may be `pathlib`'s.

    Returns:
      A `Dataset` whose splits all have at least one clip; its test split alone without `trains`.

    Raises:
      ValueError, FileNotFoundError: bad input; one line that names the field.
      OSError: the cache cannot be written.
    """
    paths = {field: os.fspath(v) for field, v in fields.items() if isinstance(v, os.PathLike)}
    if isinstance(name, str):
        config = DATASETS.make(name, **fields | paths)
    else:
        config = with_fields(name, fields | paths)
    check_field_types("data", config)
    check_ranges("data", config)
    config.check()
    from jaxmoe.data.builders.prepare import prepare

    # A class that one of the named splits lacks may be there once they are ignored.
    builder = config.builder(progress, trains=trains and config.folds is None)
    dataset = _open(config, prepare(builder), builder.columns, trains=trains)
    own_size = min(dataset.test.smallest)
    if not config.resized and config.resolution not in (None, own_size):
        raise ValueError(
            f"data.resolution: {config.resolution}; {config.name} is not resized, its images have "
            f"{own_size} pixels: leave it out"
        )
    return dataset if config.subset is None else _take_subset(dataset, config.subset)


def _open(
    config: DataConfig,
    folder: pathlib.Path,
    rows: Mapping[str, Mapping[str, str]],
    *,
    trains: bool,
) -> Dataset:
    """The splits of prepared records; unless it `trains`, the test split alone."""
    import tensorflow_datasets as tfds

    metadata = tfds.builder_from_directory(folder).info.metadata
    splits, skipped, padded = _long_enough(config, metadata)
    source_of, said = config.source_of, ()
    if config.folds is not None:
        groups = {path: config.group_of(path, row) for path, row in rows.items()}
        folds = deal_folds(groups, config.folds)
        splits = split_by_fold(itertools.chain(*splits.values()), folds, config.fold)
        source_of, said = groups.__getitem__, (_note_on_fold(config, groups, folds),)
    if not trains:
        splits = {"train": (), "validation": (), "test": _to_judge(splits)}
    held_out = _hold_out(config, splits, source_of) if trains else ()
    _check_splits(splits, metadata["classes"], len(skipped), held_out, trains=trains)
    kinds = not config.holds_clips, metadata.get("dense", False), not config.resized
    sources = {
        split: ClipSource(folder, metadata["codec"], splits[split], *kinds) for split in SPLITS
    }
    return Dataset(
        name=config.name,
        classes=tuple(metadata["classes"]),
        skipped=tuple(skipped),
        padded=tuple(padded),
        held_out=held_out,
        folder=folder,
        # Records that were prepared before there were notes have none.
        notes=(*metadata.get("notes", ()), *said, *_notes(splits)),
        rows=rows,
        **sources,
    )


def _long_enough(config: DataConfig, metadata: Mapping[str, Any]) -> tuple[dict, list, list]:
    """The records of each split; (path, reason) of those skipped, and of those that are padded."""
    needed = config.clip_span
    skipped = [(path, reason) for path, reason in metadata["skipped"]]
    padded: list[tuple[str, str]] = []
    splits: dict[str, tuple[ClipRecord, ...]] = {}
    for split, rows in metadata["clips"].items():
        records = [ClipRecord(position, split, *row) for position, row in enumerate(rows)]
        too_short = [record for record in records if record.num_frames < needed]
        reasons = [
            (r.path, f"{r.num_frames} frames, fewer than the {needed} of a clip") for r in too_short
        ]
        if config.short_videos == "skip":
            skipped.extend(reasons)
            records = [record for record in records if record.num_frames >= needed]
        else:
            padded.extend(reasons)
        splits[split] = tuple(records)
    return splits, skipped, padded


def _hold_out(
    config: DataConfig,
    splits: dict[str, tuple[ClipRecord, ...]],
    source_of: Callable[[str], str],
) -> tuple[str, ...]:
    """Takes the splits that are not there out of train, in place; their names."""
    held_out = tuple(split for split in ("test", "validation") if split not in splits)
    for split in held_out:
        fraction = getattr(config, f"{split}_fraction")
        if not 0 < fraction < 1:
            raise ValueError(
                f"data.{split}_fraction: {fraction}; accepted is a share between 0 and 1"
            )
        # Different seeds, or both would be drawn from the same end of a class.
        seed = 2 * config.seed + (split == "test")
        splits["train"], splits[split] = hold_out(splits["train"], fraction, seed, source_of)
    return held_out


def _check_splits(
    splits: Mapping[str, Sequence[ClipRecord]],
    classes: Sequence[str],
    skipped: int,
    held_out: Sequence[str],
    *,
    trains: bool,
) -> None:
    """Refuses a split without clips, and a class that there is nothing to train on of."""
    for split, records in splits.items():
        if not records and (trains or split == "test"):
            raise ValueError(
                f"data.directory: split {split!r} has no usable example; {skipped} were skipped "
                f"and {', '.join(held_out) or 'nothing'} was held out of train"
            )
    trained = {record.label for record in splits["train"]}
    for record in itertools.chain(*splits.values()):
        if record.label not in trained and trains:
            raise ValueError(
                f"data.directory: label {classes[record.label]!r} of {record.path} has "
                f"no usable example in train; {skipped} were skipped"
            )


def _note_on_fold(config: DataConfig, groups: Mapping[str, str], folds: Mapping[str, int]) -> str:
    tested = len({groups[path] for path, fold in folds.items() if fold == config.fold})
    return (
        f"test is fold {config.fold} of 0 to {config.folds - 1}, {tested} of "
        f"{len(set(groups.values()))} groups; what folders or a manifest call test is ignored"
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
            f"{', '.join(known) or 'none, it has no columns'}{did_you_mean(name, known, ALIKE)}"
        )
    train = dataset.train
    values = [dataset.rows[record.path].get(name, "") for record in train.records]
    for value in wanted.split(","):
        if value not in values:
            found = sorted(set(values))
            raise ValueError(
                f"data.subset: no training example has {name} {value!r}; accepted are "
                f"{', '.join(found[:10])}{did_you_mean(value, found, ALIKE)}"
            )
    kept = [
        record
        for record, value in zip(train.records, values, strict=True)
        if value in wanted.split(",")
    ]
    return dataclasses.replace(dataset, train=train.take(kept))
