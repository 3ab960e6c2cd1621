"""Several runs side by side: their figures, differences over the same examples, transfer.

Axes: N = test examples that two runs share.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE, Row
from jaxmoe.evaluation.measures.significance import estimate_difference, interval
from jaxmoe.reporting.page.figures.lines import Axis, Line, chart, percent_axis
from jaxmoe.reporting.page.gather import RunFiles, read_transfer
from jaxmoe.reporting.page.sections.curves import Curve
from jaxmoe.reporting.page.sections.verdict import model_of
from jaxmoe.reporting.page.wording import (
    UNKNOWN,
    epsilon,
    figure_of,
    percent,
    range_of,
    title_of,
)
from jaxmoe.reporting.page.wording import several as in_words
from jaxmoe.reporting.transfer import matrices
from jaxmoe.threat import format_epsilon


class Overview(NamedTuple):
    """A run in the table of all."""

    name: str
    anchor: int
    model: str
    recipe: str
    figures: list[tuple[str, str]]  # percent and interval, of clean and each ε's worst case
    flags: int


class Difference(NamedTuple):
    """One attack: the first run's figure, another's, and their difference in points."""

    attack: str
    first: str
    second: str
    points: str
    range: str
    sure: bool  # the interval does not hold 0


class Paired(NamedTuple):
    """A run against the first one."""

    name: str
    n: int
    rows: list[Difference]


class Matrix(NamedTuple):
    """A transfer matrix, cells as text and 0–1."""

    title: str
    targets: tuple[str, ...]
    rows: list[tuple[str, list[tuple[str, float]]]]


class Several(NamedTuple):
    """The comparison: an overview, a chart, paired differences and transfer matrices."""

    titles: list[str]
    runs: list[Overview]
    curve: Curve | None
    paired: list[Paired]
    unpaired: list[str]  # sentences on runs without
    transfer: list[Matrix]


def several(runs: Sequence[RunFiles]) -> Several:
    """Returns the comparison of two runs at least."""
    radii = list(dict.fromkeys(row.epsilon for run in runs for row in run.worst))
    norm = runs[0].clean.norm
    titles = ["clean %", *(f"worst case at {format_epsilon(r, norm)} %" for r in sorted(radii))]
    overviews = [_overview(run, place, sorted(radii)) for place, run in enumerate(runs)]
    why = {run.name: _why_not_paired(runs[0], run) for run in runs[1:]}
    paired = [_paired(runs[0], run) for run in runs[1:] if not why[run.name]]
    unpaired = [
        f"No paired difference of {in_words([n for n, own in why.items() if own == reason], 8)}: "
        f"{reason}."
        for reason in dict.fromkeys(filter(None, why.values()))
    ]
    return Several(titles, overviews, _curve(runs), paired, unpaired, transfer_of(runs))


def transfer_of(runs: Sequence[RunFiles]) -> list[Matrix]:
    """Returns the transfer matrices of these folders, and of the folder that holds all runs."""
    found = [run.transfer for run in runs if run.transfer]
    if not found and len(runs) > 1:
        above = dict.fromkeys(run.folder.resolve().parent for run in runs)
        found = [rows for rows in map(read_transfer, above) if rows]
    return [
        Matrix(
            matrix.title,
            matrix.targets,
            [
                (name, [(UNKNOWN, 0.0) if v is None else (f"{v:.1f}", v / 100) for v in line])
                for name, line in matrix.lines.items()
            ],
        )
        for rows in found
        for matrix in matrices(rows)
    ]


def _overview(run: RunFiles, place: int, radii: list[float]) -> Overview:
    worst = {row.epsilon: row for row in run.worst}
    rows = [run.clean, *(worst.get(radius) for radius in radii)]
    figures = [
        (UNKNOWN, "") if row is None else (percent(figure_of(row)), range_of(row)) for row in rows
    ]
    recipe = str(run.config.get("recipe", {}).get("name", ""))
    flags = sum(check.verdict == "flag" for check in run.checks)
    return Overview(run.name, place, model_of(run.config), recipe, figures, flags)


def _curve(runs: Sequence[RunFiles]) -> Curve | None:
    lines, legend = [], []
    norm = runs[0].clean.norm
    scale = 255 if norm == "linf" else 1
    for place, run in enumerate(runs):
        if not run.worst or run.clean.norm != norm:
            continue
        kind, rows = f"series{place % 8}", [run.clean, *run.worst]
        points = [(scale * row.epsilon, 100 * figure_of(row)) for row in rows]
        lines.append(Line(run.name, points, kind, _band(rows, scale)))
        legend.append((kind, run.name))
    if len(lines) < 2:
        return None
    places = sorted({x for line in lines for x, _ in line.points})
    label = "ε, grey levels of 255" if norm == "linf" else "ε, pixel units"
    across = Axis(label, 0.0, places[-1] or 1.0, [(x, f"{x:.3g}") for x in places])
    said = f"worst case of each run against ε: {', '.join(name for _, name in legend)}"
    picture = chart(said, lines, across, percent_axis("worst case, %"))
    return Curve("Worst case of each run", picture, legend, "Bands are 95 % intervals.")


def _band(rows: Sequence[Row], scale: float) -> list[tuple[float, float, float]]:
    found = []
    for row in rows if len(rows) > 1 and rows[0].mean_iou is None else ():
        low, high = interval(row.robust_accuracy * row.n, row.n)
        found.append((scale * row.epsilon, 100 * low, 100 * high))
    return found


def _paired(first: RunFiles, second: RunFiles) -> Paired:
    one, other = first.examples, second.examples
    _, here, there = np.intersect1d(one.index, other.index, return_indices=True)
    rows = []
    for row in second.rows:
        if row.attack == WORST_CASE:
            if not any(own.epsilon == row.epsilon for own in first.worst):
                continue
            pair = one.worst(row.epsilon)[here], other.worst(row.epsilon)[there]
            name = f"{WORST_CASE}, ε = {epsilon(row)}"
        else:
            lines = one.line(row.attack, row.epsilon), other.line(row.attack, row.epsilon)
            if None in lines:
                continue
            pair = one.robust(lines[0])[here], other.robust(lines[1])[there]
            name = CLEAN if row.attack == CLEAN else title_of(row)
        rows.append(_difference(name, *pair))
    worst = [row for row in rows if row.attack.startswith(WORST_CASE)]
    return Paired(second.name, len(here), [*worst, *(r for r in rows if r not in worst)])


def _difference(name: str, first: np.ndarray, second: np.ndarray) -> Difference:
    found = estimate_difference(second, first)
    return Difference(
        name,
        percent(float(first.mean())),
        percent(float(second.mean())),
        f"{100 * found.value:+.1f}",
        f"{100 * found.low:+.1f} to {100 * found.high:+.1f}",
        bool(found.low > 0 or found.high < 0),
    )


def _why_not_paired(first: RunFiles, second: RunFiles) -> str:
    """Returns why two runs cannot be compared example by example; nothing where they can."""
    for run in (first, second):
        if run.examples is None:
            return f"{run.name} kept no single examples"
    splits = [(run.description.get("splits") or {}).get("test") for run in (first, second)]
    sets = [run.clean.test_set for run in (first, second)]
    other = f"judged on other examples than {first.name}"
    if sets[0] != sets[1] or (sets[0] is None and None not in splits and splits[0] != splits[1]):
        return other
    common, here, there = np.intersect1d(
        first.examples.index, second.examples.index, return_indices=True
    )
    labels = first.examples.label[here], second.examples.label[there]
    same = labels[0].shape == labels[1].shape and bool(np.array_equal(*labels))
    return "" if common.size and same else other
