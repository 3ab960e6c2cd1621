"""The runs of a study: a cell for each arm of each block, with its experiment and its folder."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxmoe.config import Experiment, validate
from jaxmoe.config.study import Fields, Study
from jaxmoe.overrides import apply_overrides


class Block(NamedTuple):
    """Everything but the arm: runs of a block have the same data, order and architecture."""

    architecture: str
    fold: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return "-".join(filter(None, (self.architecture, self.fold, f"seed{self.seed}")))


class Cell(NamedTuple):
    """One run."""

    block: Block
    arm: str

    @property
    def name(self) -> str:
        """`BLOCK/ARM`, its folder's place in the study's."""
        return f"{self.block.name}/{self.arm}"


def blocks(study: Study) -> list[Block]:
    """Returns every combination of architecture, fold and seed."""
    return [
        Block(architecture, fold, seed)
        for architecture in study.architectures
        for seed in study.seeds
        for fold in study.folds
    ]


def cells(study: Study, arms: Sequence[str] | None = None) -> list[Cell]:
    """Returns the runs of a study, each behind the one that it starts from.

    Args:
      study: the arms and their blocks.
      arms: these alone, and those that they start from; None is all.
    """
    wanted = list(dict.fromkeys(each for arm in arms or study.arms for each in _line(study, arm)))
    return [Cell(block, arm) for block in blocks(study) for arm in wanted]


def experiment_of(
    study: Study, cell: Cell, runs: pathlib.Path, given: Sequence[str] = ()
) -> Experiment:
    """Returns the experiment of a cell, checked.

    Args:
      study: the one that it is a part of.
      cell: the run.
      runs: the study's folder.
      given: more overrides, of a command line.

    Raises:
      ValueError: a field that does not exist or fit; one line that names the cell.
    """
    arm, block = study.arms[cell.arm], cell.block
    own = {"run.directory": str(runs / cell.name), "run.seed": block.seed}
    if arm.start is not None:
        own["training.initialize_from"] = str(runs / block.name / arm.start)
    fields = (study.architectures[block.architecture], study.folds[block.fold], arm.fields, own)
    try:
        experiment = study.experiment
        for each in map(_options, fields):
            experiment = apply_overrides(experiment, each)
        return validate(apply_overrides(experiment, given))
    except ValueError as error:
        raise ValueError(f"{cell.name}: {error}") from None


def _line(study: Study, arm: str) -> Iterator[str]:
    """Yields an arm behind those that it starts from."""
    start = study.arms[arm].start
    if start is not None:
        yield from _line(study, start)
    yield arm


def _options(fields: Fields) -> list[str]:
    """Returns fields as a command line has them."""
    return [part for name, value in fields.items() for part in (f"--{name}", *words(value))]


def words(value: Any) -> list[str]:
    """Returns a value as one would type it."""
    if isinstance(value, tuple | list):
        return [word for each in value for word in words(each)]
    if isinstance(value, bool) or value is None:
        return [str(value).lower()]
    return [repr(value) if isinstance(value, float) else str(value)]
