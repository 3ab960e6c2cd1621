"""A transfer matrix as files, tables and a figure: lines are sources, columns are targets.

The first line has the accuracy on clean clips; the last, "all others", what is right under the
clips of every source but the target itself.
"""

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from jaxmoe.evaluation.transfer.transfer_result import TransferRow
from jaxmoe.files import write_text
from jaxmoe.reporting.figures import new_figure
from jaxmoe.reporting.results import as_csv, without_nan
from jaxmoe.reporting.tables import print_table
from jaxmoe.reporting.text_table import markdown_table
from jaxmoe.threat import format_epsilon

NAME = "transfer"  # of the files, before their ends
CLEAN_LINE = "clean (no attack)"
_CORNER = "made on / scored on"
_DIAGONAL = (
    "Lines: the model that the examples were made on; columns: the model that they were scored on. "
    "Where both are the same, the attack was a white box."
)


class Matrix(NamedTuple):
    """Robust accuracy in %, or mean IoU where every pixel has a label; one attack at one ε."""

    title: str
    targets: tuple[str, ...]
    lines: dict[str, list[float | None]]  # by source; None where a target has no such figure


def write_transfer(
    rows: Sequence[TransferRow], folder: str | os.PathLike, notes: Sequence[str] = ()
) -> list[pathlib.Path]:
    """Writes `transfer.json`, `.csv` and `.md` into `folder`, which is made if need be.

    `notes` are lines above the tables of `transfer.md`.

    Returns:
      The files' paths.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = [without_nan(row._asdict()) for row in rows]
    contents = {
        "json": json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "csv": as_csv(records, TransferRow._fields),
        "md": transfer_markdown(rows, notes),
    }
    for end, text in contents.items():
        write_text(folder / f"{NAME}.{end}", text)
    return [folder / f"{NAME}.{end}" for end in contents]


def transfer_markdown(rows: Sequence[TransferRow], notes: Sequence[str] = ()) -> str:
    """One table in Markdown for each attack and ε."""
    lines = ["# Transfer of attacks", "", _DIAGONAL]
    lines += [part for note in notes for part in ("", f"{note[:1].upper()}{note[1:]}.")]
    for matrix in matrices(rows):
        lines += ["", f"## {matrix.title}", ""]
        lines += markdown_table([_CORNER, *matrix.targets], _cells(matrix))
    return "\n".join(lines) + "\n"


def print_transfer(rows: Sequence[TransferRow], file: TextIO | None = None) -> None:
    """Prints one table for each attack and ε; `file` as for `print_suite`."""
    for matrix in matrices(rows):
        print_table(matrix.title, [_CORNER, *matrix.targets], _cells(matrix), file)


def plot_transfer(rows: Sequence[TransferRow], path: str | os.PathLike) -> pathlib.Path:
    """Draws a heat map for each attack (down) and ε (across), all with colours from 0 to 100 %.

    Args:
      rows: of a transfer matrix.
      path: of the PNG file.

    Returns:
      The file's path.
    """
    found = matrices(rows)
    across = len(dict.fromkeys(row.epsilon for row in rows))
    down = len(found) // across
    # Inches that a cell, and the names beside it, need to be read.
    width = across * (2.0 + 0.8 * len(found[0].targets))
    height = down * (1.5 + 0.4 * len(found[0].lines))
    figure = new_figure(width, height)
    for axes, matrix in zip(figure.subplots(down, across, squeeze=False).flat, found, strict=True):
        _draw(axes, matrix)
    figure.savefig(path, dpi=120)
    return pathlib.Path(path)


def matrices(rows: Sequence[TransferRow]) -> list[Matrix]:
    """The rows as one matrix for each attack and ε, in their order."""
    kinds = dict.fromkeys((row.attack, row.epsilon) for row in rows)
    return [_matrix([row for row in rows if (row.attack, row.epsilon) == kind]) for kind in kinds]


def _matrix(rows: Sequence[TransferRow]) -> Matrix:
    first = rows[0]
    figure, field, clean_field = "robust accuracy", "robust_accuracy", "clean_accuracy"
    if first.mean_iou is not None:
        figure, field, clean_field = "mIoU", "mean_iou", "clean_iou"
    title = (
        f"{first.attack}, ε = {format_epsilon(first.epsilon, first.norm)} ({first.norm}): "
        f"{figure} %, n = {first.n} examples, seed {first.seed}"
    )
    clean = {row.target: 100 * getattr(row, clean_field) for row in rows}
    found = {(row.source, row.target): 100 * getattr(row, field) for row in rows}
    sources = dict.fromkeys(row.source for row in rows)
    lines = {source: [found.get((source, target)) for target in clean] for source in sources}
    return Matrix(title, tuple(clean), {CLEAN_LINE: list(clean.values())} | lines)


def _cells(matrix: Matrix) -> list[list[str]]:
    return [[name, *map(_percent, line)] for name, line in matrix.lines.items()]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _draw(axes, matrix: Matrix) -> None:
    values = [
        [float("nan") if value is None else value for value in line]
        for line in matrix.lines.values()
    ]
    image = axes.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_title(matrix.title.replace(": ", ":\n"), fontsize="small")
    axes.set_xticks(range(len(matrix.targets)), matrix.targets, rotation=30, ha="right")
    axes.set_yticks(range(len(matrix.lines)), matrix.lines)
    axes.set_xlabel("scored on", fontsize="x-small")
    axes.set_ylabel("made on", fontsize="x-small")
    axes.tick_params(labelsize="x-small", length=0)
    for line, row in enumerate(values):
        for column, value in enumerate(row):
            if not math.isnan(value):
                # viridis is dark below and bright above.
                colour = "white" if image.norm(value) < 0.6 else "black"
                axes.text(
                    column, line, f"{value:.1f}", color=colour, ha="center", va="center", size=8
                )
