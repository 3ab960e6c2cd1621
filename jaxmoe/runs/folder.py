"""Reads and writes a run's folder: its experiment, its splits, whether training has ended."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal

import jax

from jaxmoe import data
from jaxmoe.config import Experiment, from_dict, to_dict
from jaxmoe.files import hold, is_held, read_json, write_json
from jaxmoe.plugins import loaded
from jaxmoe.registry import UnknownEntryError
from jaxmoe.training import Checkpoints, DamagedCheckpointError

IMPORTED = "imported.json"  # in a folder whose weights were not trained there
TRAINING = "training"  # what the lock of a folder that is being trained is called

# Where things lie does not decide what a run computes.
_MAY_CHANGE = {
    ("run", "directory"),
    ("run", "log_every"),
    ("run", "logger"),
    ("run", "checkpoint_every"),
    ("run", "checkpoint_steps"),
    ("run", "keep_latest"),
    ("run", "keep_every"),
    ("data", "directory"),
    ("data", "manifest"),  # what it lists may not: `check_same_splits`
    ("data", "cache"),
    ("run", "plugins"),
}


def read_experiment(run: pathlib.Path) -> Experiment:
    """The experiment of a run's folder.

    Raises:
      FileNotFoundError: no run there.
      ValueError: its `config.json` is cut off, or has unknown fields or other types.
    """
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"run: no config.json in {run}; expected the folder of a run")
    values = read_json(path)
    try:
        return from_dict(values)
    except UnknownEntryError as error:
        raise ValueError(
            f"{run}: its config.json names {error.what}, which is not known here; --plugin FILE.py "
            "names the file that adds it"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{run}: its config.json is damaged: {error}") from None


def write_description(run: pathlib.Path, experiment: Experiment, dataset: data.Dataset) -> None:
    """Writes `config.json` and `run.json`, atomically; a resumed run adds to the latter."""
    run.mkdir(parents=True, exist_ok=True)
    packages = ("jaxmoe", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    process = {
        "command": sys.argv,
        "git_revision": _git_revision(),
        "python": sys.version.split()[0],
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "devices": [device.device_kind for device in jax.devices()],
    }
    before = _description(run)["processes"]
    description = {
        "seed": experiment.run.seed,
        "processes": [*before, process],  # more than one where the run was stopped
        "classes": list(dataset.classes),
        "clips": dataset.counts,
        "splits": describe_splits(dataset),
        "skipped": list(dataset.skipped),
        "padded": list(dataset.padded),
    }
    own = dataclasses.replace(experiment.run, plugins=loaded() or None)
    write_json(run / "config.json", to_dict(dataclasses.replace(experiment, run=own)))
    write_json(run / "run.json", description)


def describe_splits(dataset: data.Dataset) -> dict[str, str]:
    """A digest of each split's clips and labels, wherever the files lie."""
    return {
        split: hashlib.sha256(
            json.dumps([(record.path, record.label) for record in source.records]).encode()
        ).hexdigest()[:16]
        for split, source in dataset.splits.items()
    }


def check_same_splits(
    run: pathlib.Path,
    dataset: data.Dataset,
    field: str,
    advice: str,
    splits: Sequence[str] = data.SPLITS,
) -> None:
    """A run was trained on the same splits, if its folder says on which.

    Args:
      run: the folder.
      dataset: the splits.
      field: the configuration's field to name in an error.
      advice: the end of its line.
      splits: those that are compared.

    Raises:
      ValueError: it holds a run with other clips or labels in one of them.
    """
    if not (run / "run.json").is_file():
        return
    recorded = _description(run)["splits"]
    for split, digest in describe_splits(dataset).items():
        if split in splits and recorded.get(split) != digest:
            raise ValueError(f"{field}: {run} holds a run with other {split} examples; {advice}")


def recorded_classes(run: pathlib.Path) -> tuple[str, ...]:
    """The names of a run's classes in the order of their numbers; none where it does not say."""
    return tuple(_description(run)["classes"])


def _description(run: pathlib.Path) -> dict[str, Any]:
    """Returns what a run's `run.json` says that others rely on, if it says anything."""
    path = run / "run.json"
    described = read_json(path) if path.is_file() else {}
    expected = {"processes": [], "classes": [], "splits": {}}
    for name, nothing in expected.items():
        value = described.get(name, nothing)
        if not isinstance(value, type(nothing)):
            raise ValueError(
                f"{run}: its run.json is damaged: {name} is {value!r}; expected a "
                f"{type(nothing).__name__}"
            )
    return {**expected, **described}


State = Literal["finished", "training", "stopped"]


def state_of(run: pathlib.Path) -> State:
    """How far a run is: trained to its end, being trained by a process now, or neither."""
    if is_finished(run):
        return "finished"
    return "training" if is_held(run, TRAINING) else "stopped"


def is_finished(run: pathlib.Path) -> bool:
    """Whether a run was trained to its end; all processes have to ask, as one reads with all."""
    try:
        position = Checkpoints(run).position("latest")
    except DamagedCheckpointError:
        return False  # whoever reads it is told; its best checkpoint may be whole
    return position is not None and position.get("finished", False)


def hold_for_training(run: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Keeps other processes from training the same run, for as long as this one does."""
    if jax.process_index() > 0:
        return contextlib.nullcontext()  # all of one run: the first holds its folder
    return hold(run, TRAINING, "run.directory", "is being trained")


def check_same_experiment(run: pathlib.Path, experiment: Experiment) -> None:
    """A folder holds no run, or one of this experiment; raises a ValueError otherwise."""
    if not (run / "config.json").is_file():
        return
    old, new = to_dict(read_experiment(run)), to_dict(experiment)
    for section, fields in new.items():
        for name, value in fields.items():
            if section in ("evaluation", "parallel") or (section, name) in _MAY_CHANGE:
                continue
            if (section, name) == ("attack", "iterate") and experiment.recipe.is_clean:
                continue  # no attack trains
            source = section == "training" and name.startswith("initialize_")
            before = old[section].get(name)
            if source and value and before:
                continue  # the source may have moved
            if before != value:
                raise ValueError(
                    f"run.directory: {run} holds a run with {section}.{name} = {before}, not "
                    f"{value}; choose another directory"
                )


def _git_revision() -> str | None:
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
