"""What the runs of a study found, read from their folders.

Axes: N = test examples of a run, R = attacks and ε that it was judged by.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmoe.attacks.registry import canonical_name
from jaxmoe.config.study import Study
from jaxmoe.evaluation.engine.rows import CLEAN, Row
from jaxmoe.files import read_json
from jaxmoe.reporting.results import EXAMPLES, read_examples, read_results
from jaxmoe.runs.folder import state_of
from jaxmoe.runs.study.cells import Cell
from jaxmoe.training import Checkpoints

_DETAILS = "evaluation.json"
_JOURNAL = "evaluation.journal"
TRANSFER = "transfer"  # folder of a block's transfer matrix


class Found(NamedTuple):
    """One run's results.

    Attributes:
      cell: which run.
      rows: of its evaluation.
      correct: `[N]` by attack and ε, 1 where right when clean and under the attack.
      details: of `evaluation.json`.
      seconds: of its own training.
    """

    cell: Cell
    rows: tuple[Row, ...]
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
    """Returns whether a run was judged by these attacks, to the end, at every ε of the study."""
    if not (folder / _DETAILS).is_file() or (folder / _JOURNAL).is_file():
        return False
    if not (folder / EXAMPLES).is_file():
        return False
    there = {(row.attack, row.epsilon) for row in read_results(folder)}
    wanted = {(canonical_name(name), e) for name in attacks for e in study.epsilons}
    return wanted <= there


def read(cell: Cell, runs: pathlib.Path) -> Found:
    """Returns what a run found that was trained and judged."""
    folder = runs / cell.name
    clean, correct = None, {}
    for attack, epsilon, right in read_examples(folder):
        correct[attack, epsilon] = right
        clean = right if attack == CLEAN else clean
    correct = {key: np.minimum(right, clean) for key, right in correct.items()}
    seconds = (Checkpoints(folder).position("latest") or {"seconds": 0.0})["seconds"]
    rows, details = tuple(read_results(folder)), read_json(folder / _DETAILS)
    return Found(cell, rows, correct, details, seconds)
