"""`results.json`, `results.csv` and `results.md`: one row for each attack and ε.

Each file is written beside its place and then moved there: whoever reads it finds a whole one.
"""

import csv
import io
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmoe.evaluation.engine.rows import Check, Row, SuiteResult
from jaxmoe.evaluation.engine.verdict import verdict_line
from jaxmoe.evaluation.measures.flops import MixtureFlops
from jaxmoe.evaluation.measures.specialization import Specialization, specialization_sentence
from jaxmoe.files import read_json, write_bytes, write_text
from jaxmoe.reporting.tables import legend, main_table, specialization_table
from jaxmoe.reporting.text_table import markdown_table

JSON, CSV, MARKDOWN = "results.json", "results.csv", "results.md"
EXAMPLES, SHOWN = "examples.npz", "shown.npz"


def write_results(
    rows: Sequence[Row],
    folder: str | os.PathLike,
    *,
    checks: Sequence[Check] | None = None,
    flops: MixtureFlops | None = None,
    notes: Sequence[str] = (),
    head: Sequence[str] = (),
    specialization: Specialization | None = None,
) -> list[pathlib.Path]:
    """Writes the three files into `folder`, which is made if need be.

    Args:
      rows: of a suite.
      folder: where to.
      checks: of masked gradients, for `results.md`, which says so where none ran; None leaves them
        out.
      flops: of `mixture_flops`, for `results.md`.
      notes: of a suite, for `results.md`.
      head: lines above the table of `results.md`.
      specialization: of a suite, for `results.md`.

    Returns:
      The files' paths.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = [without_nan(row.as_record()) for row in rows]
    contents = {
        JSON: json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        CSV: as_csv(_flat(records), _columns(rows)),
        MARKDOWN: results_markdown(rows, checks, flops, notes, head, specialization),
    }
    for name, text in contents.items():
        write_text(folder / name, text)
    return [folder / name for name in contents]


def _columns(rows: Sequence[Row]) -> list[str]:
    """The columns of `results.csv`; a measure is one of its own."""
    measures = (rows[0].measures or {}) if rows else {}
    return [*Row._fields[:-1], *(f"measure_{name}" for name in measures)]


def _flat(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if name != "measures"}
        | {f"measure_{name}": value for name, value in (record.get("measures") or {}).items()}
        for record in records
    ]


def read_results(folder: str | os.PathLike) -> list[Row]:
    """The rows that `write_results` wrote into `folder`.

    Raises:
      FileNotFoundError: there are none.
      ValueError: the file is cut off.
    """
    records = read_json(pathlib.Path(folder) / JSON, list)
    return [Row(**record) for record in records]


def write_examples(result: SuiteResult, folder: str | os.PathLike) -> pathlib.Path:
    """Writes `examples.npz`, which says of each example what it withstood; returns its path.

    `index` and `label` `[N, …]` are the examples'; `attack` and `epsilon` `[R]` say what each line
    of `correct` `[R, N]` is: 1 where it was right under that attack, the first line without one.
    A result that has `kept` adds its facts `[R, N, …]`, by their names. Where labels
    are of pixels, `confusion` `[R, K, K]` counts those of all examples by label and prediction.
    """
    names, epsilons = zip(*result.correct, strict=True)
    path = pathlib.Path(folder) / EXAMPLES
    text = io.BytesIO()
    np.savez_compressed(
        text,
        index=result.index,
        label=result.label,
        attack=np.array(names),
        epsilon=np.array(epsilons, np.float64),
        correct=np.stack([np.asarray(right, np.float32) for right in result.correct.values()]),
        **_facts(result),
        **_confusion(result),
    )
    write_bytes(path, text.getvalue())
    return path


def _confusion(result: SuiteResult) -> dict[str, np.ndarray]:
    """The pixels of all examples in each line by label and prediction, [R, K, K]; else nothing."""
    if result.confusion is None:
        return {}
    lines = [np.sum(result.confusion[key], axis=0, dtype=np.int64) for key in result.correct]
    return {"confusion": np.stack(lines)}


def _facts(result: SuiteResult) -> dict[str, np.ndarray]:
    """The facts that a result keeps of each example, [R, N, …] by their names."""
    if result.kept is None:
        return {}
    lines = [result.kept[key] for key in result.correct]
    return {
        name: np.stack([getattr(line, name) for line in lines])
        for name, first in lines[0]._asdict().items()
        if first is not None
    }


def write_shown(result: SuiteResult, folder: str | os.PathLike) -> list[pathlib.Path]:
    """Writes `shown.npz`, the whole examples of a result, by the names of `Shown`'s fields.

    Without any it removes the file of an evaluation before. Returns the paths that it wrote.
    """
    path = pathlib.Path(folder) / SHOWN
    if result.shown is None:
        path.unlink(missing_ok=True)
        return []
    text = io.BytesIO()
    arrays = {name: each for name, each in result.shown._asdict().items() if each is not None}
    np.savez_compressed(text, **arrays)
    write_bytes(path, text.getvalue())
    return [path]


def read_examples(
    folder: str | os.PathLike,
) -> tuple[np.ndarray, dict[tuple[str, float], np.ndarray]]:
    """Returns what `examples.npz` holds: `index` `[N]`, and `correct` `[N]` by attack and ε."""
    with np.load(pathlib.Path(folder) / EXAMPLES) as found:
        keys = zip(found["attack"].tolist(), found["epsilon"].tolist(), strict=True)
        return found["index"], dict(zip(keys, found["correct"], strict=True))


def results_markdown(
    rows: Sequence[Row],
    checks: Sequence[Check] | None = None,
    flops: MixtureFlops | None = None,
    notes: Sequence[str] = (),
    head: Sequence[str] = (),
    specialization: Specialization | None = None,
) -> str:
    """The main table of a terminal in Markdown; behind it notes, checks and GFLOPs, if given."""
    lines = [part for line in head for part in (f"{line[:1].upper()}{line[1:]}.", "")]
    lines += markdown_table(*main_table(rows))
    if rows:
        lines += ["", f"n = {rows[0].n} examples, seed {rows[0].seed}, norm {rows[0].norm}."]
        lines += ["", f"{legend(rows)}."]
    for note in notes:
        lines += ["", f"{note}."]
    if specialization is not None:
        lines += ["", *markdown_table(*specialization_table(specialization))]
        lines += ["", specialization_sentence(specialization)]
    if checks:
        lines += ["", *markdown_table(["verdict", "check", "meaning"], [_check(c) for c in checks])]
    if checks is not None:
        lines += ["", verdict_line(checks)]
    if flops is not None:
        lines += [
            "",
            f"GFLOPs per example: mixture {flops.sparse:.4g}, dense {flops.dense:.4g}, "
            f"mixture / dense {flops.ratio:.3f}.",
        ]
    return "\n".join(lines) + "\n"


def _check(check: Check) -> list[str]:
    return [check.verdict, check.name, check.sentence]


def as_csv(records: Sequence[dict[str, Any]], fields: Sequence[str]) -> str:
    """A header of `fields` and one line for each record; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=fields, lineterminator="\n")
    writer.writeheader()
    for record in records:
        # A list in one cell, so that the columns do not depend on the number of experts.
        writer.writerow(
            {
                name: " ".join(map(str, value)) if isinstance(value, list) else value
                for name, value in record.items()
            }
        )
    return text.getvalue()


def without_nan(value: Any) -> Any:
    """Returns a value for JSON: NaN and infinities become null."""
    if isinstance(value, dict):
        return {name: without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [without_nan(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
