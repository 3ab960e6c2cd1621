"""Opens the clips that a run is judged by: its own test split, or others of the same classes.

Other clips come from another directory, manifest or kind of data set than the run's. Their classes
are matched by name.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmoe import data
from jaxmoe.config import DataConfig, Experiment
from jaxmoe.registry import with_fields
from jaxmoe.runs.folder import check_same_splits, describe_splits, recorded_classes
from jaxmoe.spelling import ALIKE, did_you_mean

_SHOWN = 10  # classes in a line


class OtherClips(NamedTuple):
    """A test set that is not the run's own."""

    name: str  # of `data.DATASETS`
    directory: str | None  # as given, or as in the run's config
    manifest: str | None  # as given
    digest: str  # of the clips' contents and the names of their classes, in no order
    n: int
    in_training: int | None  # clips that the run was trained on; None where that is not known
    notes: tuple[str, ...]  # lines for a reader of the results


def open_clips(
    run: pathlib.Path,
    experiment: Experiment,
    fields: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[data.Dataset, OtherClips | None]:
    """Returns a run's data set, and what its test split is where that is not the run's own.

    Args:
      run: the run's folder.
      experiment: the run's, as recorded.
      fields: of `DataConfig` that were given: `name`, `directory`, `manifest`. Where they lead to
        the run's own clips, which may have moved, these are its data set. Else the test split is
        theirs, and the others are the run's own, empty where they are not there.
      progress: called with (clips done, clips in all) while they are prepared.

    Raises:
      FileNotFoundError: a directory or file that is not there.
      ValueError: a class that is none of the run's, clips of another kind, or, without `fields`,
        clips that are not the run's own.
    """
    if not fields:
        return _open_own(run, experiment.data, progress), None
    given = with_fields(experiment.data, fields)
    _check_same_kind(experiment.data, given)
    if given.name != experiment.data.name and not given.resized:
        given = dataclasses.replace(given, resolution=None)
    own, why_not = None, ""
    try:
        own = _open_own(run, experiment.data, progress)
    except (ValueError, OSError) as error:
        why_not = str(error)
    try:
        found = _open_own(run, given, progress)
        if own is None or _are_the_same(own, found):
            return found, None
    except (ValueError, OSError):
        pass  # not the run's own, or nothing; the next line says what
    wanted = dataclasses.replace(given, subset=None)
    if "manifest" not in fields and given.manifest:
        wanted = dataclasses.replace(wanted, manifest=None)
    if wanted.folds is not None:  # of the run's examples, and these are others
        wanted = dataclasses.replace(wanted, folds=None, fold=0)
    found = data.load_dataset(wanted, progress=progress, trains=False)
    classes = recorded_classes(run) or (own and own.classes)
    if not classes:
        raise ValueError(
            f"data.directory: {run} does not say its classes, and its own examples, which do, "
            f"cannot be read: {why_not}"
        )
    where = wanted.manifest or wanted.directory or wanted.name
    test = _with_labels_of(classes, found, where)
    digests = test.digests()
    in_training = None if own is None else _count_in(own.train, test, digests)
    other = OtherClips(
        wanted.name,
        wanted.directory,
        wanted.manifest,
        _digest(test, digests, classes),
        len(test),
        in_training,
        (),
    )
    notes = _notes(other, where, test, classes, why_not)
    dataset = dataclasses.replace(
        found,
        classes=tuple(classes),
        train=test.take([]) if own is None else own.train,
        validation=test.take([]) if own is None else own.validation,
        test=test,
    )
    return dataset, other._replace(notes=notes)


def _open_own(
    run: pathlib.Path, config: DataConfig, progress: Callable[[int, int], None] | None
) -> data.Dataset:
    dataset = data.load_dataset(config, progress=progress)
    check_same_splits(run, dataset, "data.directory", "expected those that it was trained on")
    return dataset


def _are_the_same(own: data.Dataset, found: data.Dataset) -> bool:
    """Returns whether two data sets have the same test clips, whatever their files are called."""
    if own.folder == found.folder:
        return own.test.records == found.test.records
    if describe_splits(own)["test"] != describe_splits(found)["test"]:
        return False
    return own.classes == found.classes and own.test.digests() == found.test.digests()


def _check_same_kind(own: DataConfig, given: DataConfig) -> None:
    """Clips for clips, images for images; raises a ValueError otherwise."""
    kinds = [(config.holds_clips, config.labels_pixels) for config in (own, given)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"data.name: {given.name} has other inputs or labels than {own.name}, which the run "
            "was trained on"
        )


def _with_labels_of(classes: Sequence[str], found: data.Dataset, where: str) -> data.ClipSource:
    """The test clips with the run's numbers of their classes."""
    test, few = found.test, f"{', '.join(classes[:_SHOWN])}{', …' if classes[_SHOWN:] else ''}"
    if test.dense:
        if tuple(classes) != found.classes:
            names = ", ".join(found.classes[:_SHOWN])
            raise ValueError(
                f"data.directory: {where} has the classes {names} in its label maps; expected "
                f"those of the run in its order, {few}"
            )
        return test
    for label in sorted({record.label for record in test.records}):
        name = found.classes[label]
        if name not in classes:
            raise ValueError(
                f"data.directory: {where} has examples of {name!r}, which is no class of the run; "
                f"its classes are {few}{did_you_mean(name, classes, ALIKE)}"
            )
    return test.take(
        [
            dataclasses.replace(record, label=list(classes).index(found.classes[record.label]))
            for record in test.records
        ]
    )


def _count_in(train: data.ClipSource, test: data.ClipSource, digests: Sequence[str]) -> int:
    """How many test clips a training split holds too, by what they show."""
    shapes = {(record.num_frames, record.height, record.width) for record in test.records}
    places = [
        place
        for place, record in enumerate(train.records)
        if (record.num_frames, record.height, record.width) in shapes
    ]
    trained = set(train.digests(places))
    return sum(digest in trained for digest in digests)


def _digest(test: data.ClipSource, digests: Sequence[str], classes: Sequence[str]) -> str:
    labels = [
        hashlib.sha256(np.ascontiguousarray(test[place]["label"])).hexdigest()
        if test.dense
        else classes[record.label]
        for place, record in enumerate(test.records)
    ]
    named = sorted(zip(digests, labels, strict=True))
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


def _notes(
    other: OtherClips, where: str, test: data.ClipSource, classes: Sequence[str], why_not: str
) -> tuple[str, ...]:
    lines = [f"not the run's own test split: {other.n} of {where}, digest {other.digest}"]
    if other.in_training is None:
        lines.append(
            f"the run's training examples cannot be read ({why_not}): some of these may be among "
            "them"
        )
    elif other.in_training:
        lines.append(
            f"{other.in_training} of the {other.n} are in the run's training split: figures on "
            "them are of what it has learned by heart"
        )
    if not test.dense:
        present = {record.label for record in test.records}
        missing = [name for place, name in enumerate(classes) if place not in present]
        if missing:
            more = ", …" if missing[_SHOWN:] else ""
            lines.append(f"none of them is of the classes {', '.join(missing[:_SHOWN])}{more}")
    return tuple(lines)
