"""The results of a study's runs, read from their folders.

Axes: N = test examples of a run, R = attacks and ε that it was judged by.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmoe.attacks.cascade import CUSTOM
from jaxmoe.attacks.registry import canonical_name
from jaxmoe.config.study import Study
from jaxmoe.evaluation.engine.rows import CLEAN, Row
from jaxmoe.evaluation.transfer.transfer import transfer_name
from jaxmoe.files import read_json, write_json
from jaxmoe.reporting.results import read_examples, read_results
from jaxmoe.runs.folder import state_of
from jaxmoe.runs.study.cells import Cell, words
from jaxmoe.training import Checkpoints

_DETAILS = "evaluation.json"
_JOURNAL = "evaluation.journal"
_JUDGED = "judged.json"  # how the study judged a run
TRANSFER = "transfer"  # folder of a block's transfer matrix


class Found(NamedTuple):
    """One run's results.

    Attributes:
      cell: which run.
      rows: of its evaluation.
      index: `[N]`, the examples' own numbers.
      correct: `[N]` by the study's attacks and ε, 1 where right when clean and under the attack.
      details: of `evaluation.json`.
      seconds: of its own training.
    """

    cell: Cell
    rows: tuple[Row, ...]
    index: np.ndarray
    correct: Mapping[tuple[str, float], np.ndarray]
    details: Mapping[str, Any]
    seconds: float

    def row(self, attack: str, epsilon: float) -> Row | None:
        """The row of an attack, if there is one."""
        here = (row for row in self.rows if (row.attack, row.epsilon) == (attack, epsilon))
        return next(here, None)

    def worst(self, epsilon: float) -> np.ndarray:
        """1 where right when clean and under every attack up to ε, `[N]`."""
        return np.minimum.reduce(
            [right for (_, at), right in self.correct.items() if at <= epsilon]
        )


def is_trained(folder: pathlib.Path) -> bool:
    """Returns whether a run was trained to its end."""
    return state_of(folder) == "finished"


def is_evaluated(study: Study, folder: pathlib.Path, attacks: Sequence[str]) -> bool:
    """Returns whether a run was judged to the end as the study says, or by more attacks."""
    if not (folder / _JUDGED).is_file() or (folder / _JOURNAL).is_file():
        return False
    there, wanted = read_json(folder / _JUDGED), _judging(study, attacks)
    same = there["evaluation"] == wanted["evaluation"]
    return same and all(set(wanted[k]) <= set(there[k]) for k in ("attacks", "epsilons"))


def mark_evaluated(study: Study, folder: pathlib.Path, attacks: Sequence[str]) -> None:
    """Keeps beside an evaluation how it was made."""
    write_json(folder / _JUDGED, _judging(study, attacks))


def _judging(study: Study, attacks: Sequence[str]) -> dict[str, Any]:
    names = [canonical_name(name) for name in attacks]
    options = {name: words(value) for name, value in study.evaluation.items()}
    return {"attacks": names, "epsilons": list(study.epsilons), "evaluation": options}


def is_transferred(study: Study, folder: pathlib.Path, names: Sequence[str]) -> bool:
    """Returns whether a block has a transfer matrix of these arms, by the study's attacks."""
    file = folder / "transfer.json"
    if not file.is_file():
        return False
    rows = read_json(file, list)
    targets = {pathlib.PurePath(row["target"]).name for row in rows}
    there = {(row["attack"], row["epsilon"]) for row in rows}
    wanted = {(transfer_name(name), e) for name in study.transfer for e in study.epsilons}
    return targets >= set(names) and wanted <= there


def read(study: Study, cell: Cell, runs: pathlib.Path) -> Found:
    """Returns what a run found that was trained and judged."""
    folder = runs / cell.name
    index, there = read_examples(folder)
    # An evaluation may have more: the worst case of every run is over the same attacks.
    names, clean = {CLEAN, *map(canonical_name, study.attacks)}, there[CLEAN, 0.0]
    if "cascade" in study.evaluation:
        names.add(CUSTOM)
    correct = {
        (name, epsilon): np.minimum(right, clean)
        for (name, epsilon), right in there.items()
        if name in names and epsilon in (0.0, *study.epsilons)
    }
    seconds = (Checkpoints(folder).position("latest") or {"seconds": 0.0})["seconds"]
    rows, details = tuple(read_results(folder)), read_json(folder / _DETAILS)
    return Found(cell, rows, index, correct, details, seconds)
