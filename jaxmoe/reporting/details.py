"""`evaluation.json`: the checks of an evaluation, how it was made, and of which run it is."""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxmoe.evaluation.engine.rows import Row, SuiteResult
from jaxmoe.files import write_text
from jaxmoe.reporting.results import (
    without_nan,
    write_examples,
    write_results,
    write_shown,
)

if TYPE_CHECKING:
    from jaxmoe.attacks import AttackSettings
    from jaxmoe.evaluation.measures.flops import MixtureFlops
    from jaxmoe.runs.other_clips import OtherClips
    from jaxmoe.runs.run import Trained

DETAILS = "evaluation.json"
FINISHED = "attacks_finished"  # a field


def write_details(
    result: SuiteResult,
    folder: pathlib.Path,
    run: str | os.PathLike | None,
    *,
    settings: "AttackSettings",
    gradients: Sequence[str],
    checkpoint: str,
    training_finished: bool,
    part: str | None = None,
    dual_weight: float | None = None,
    other: "OtherClips | None" = None,
    finished: bool = True,
    flops: "MixtureFlops | None" = None,
) -> pathlib.Path:
    """Writes `evaluation.json` beside `results.json` of the same rows; returns its path.

    Args:
      result: of a suite.
      folder: where the results are.
      run: folder of the run that was judged.
      settings: of the attacks.
      gradients: that attacks on the whole mixture saw.
      checkpoint: the params that were judged, by their name.
      training_finished: whether the run was trained to its end.
      part: of the mixture that was judged in its place, as `expert0`.
      dual_weight: α of a dual model.
      other: the clips, where they are not the run's own test split.
      finished: whether all attacks ran.
      flops: of an example.
    """
    checks = (*result.checks, *result.model_checks)
    details = {
        "command": sys.argv,
        "run": None if run is None else _from(folder, run),
        "part": part,
        "rows": row_keys(result.rows),
        FINISHED: finished,
        "settings": dataclasses.asdict(settings) | {"gradient": list(gradients)},
        "test_set": "the run's own test split" if other is None else other._asdict(),
        "notes": result.notes,
        "cascades": [stage._asdict() for stage in result.stages],
        "checkpoint": checkpoint,
        "dual_weight": dual_weight,
        "training_finished": training_finished,
        "checks": [check._asdict() for check in checks],
        "specialization": result.specialization and result.specialization.as_json(),
        "gflops": flops and flops._asdict(),
        "compilations": result.compilations,
    }
    path = folder / DETAILS
    write_text(path, json.dumps(details, indent=1, ensure_ascii=False) + "\n")
    return path


def write_evaluation(
    result: SuiteResult, folder: pathlib.Path, trained: "Trained", settings: "AttackSettings"
) -> None:
    """Writes the files of an evaluation of a whole run, on its own test split, into its folder."""
    config = trained.experiment
    write_results(result.rows, folder)
    write_details(
        result,
        folder,
        folder,
        settings=settings,
        gradients=[settings.gradient],
        checkpoint=config.evaluation.checkpoint,
        training_finished=trained.finished,
        dual_weight=config.mixture.dual_weight,
    )
    write_examples(result, folder)
    write_shown(result, folder)


def row_keys(rows: Sequence[Row]) -> list[list[Any]]:
    """Returns what tells a table from another: attack, ε and robust accuracy of each row."""
    return [without_nan([row.attack, row.epsilon, row.robust_accuracy]) for row in rows]


def _from(folder: pathlib.Path, run: str | os.PathLike) -> str:
    """The path from a folder to a run, which holds where both are moved together."""
    return os.path.relpath(pathlib.Path(run).resolve(), folder.resolve())
