"""The table of all attacks × ε, the worst case on top, then by the part that is attacked."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxmoe.evaluation.engine.rows import Row
from jaxmoe.evaluation.measures.measures import MEASURES
from jaxmoe.reporting.page.gather import RunFiles
from jaxmoe.reporting.page.wording import (
    PARTS,
    UNKNOWN,
    epsilon,
    figure_of,
    part_of,
    percent,
    range_of,
)


class Cell(NamedTuple):
    """A cell: what it says, and what it is sorted by."""

    text: str
    value: Any


class Group(NamedTuple):
    """The rows of attacks on one part."""

    kind: str
    title: str
    rows: list[list[Cell]]


class AttackTable(NamedTuple):
    """Titles with their explanations, rows on top, and rows by part."""

    titles: list[tuple[str, str]]
    top: list[list[Cell]]
    groups: list[Group]


class _Column(NamedTuple):
    title: str
    explained: str
    cell: Callable[[Row], Cell]


def attack_table(run: RunFiles) -> AttackTable:
    """Returns the table of a run."""
    columns = _columns(run)

    def cells(row: Row) -> list[Cell]:
        return [column.cell(row) for column in columns]

    by_part: dict[str, list[Row]] = {part: [] for part in PARTS}
    for row in run.attacks:
        by_part[part_of(row.attack)].append(row)
    groups = [
        Group(part, f"attacks {PARTS[part]}" if part != "others" else "other attacks", own)
        for part, own in ((part, [cells(row) for row in rows]) for part, rows in by_part.items())
        if own
    ]
    titles = [(column.title, column.explained) for column in columns]
    return AttackTable(titles, [cells(row) for row in (*run.worst, run.clean)], groups)


def _interval(explained: str) -> _Column:
    return _Column("95 % interval", explained, lambda row: Cell(range_of(row), None))


def _columns(run: RunFiles) -> list[_Column]:
    columns = [
        _Column("attack", "its name", lambda row: Cell(row.attack, row.attack)),
        _Column("ε", "radius, in pixel units", lambda row: Cell(epsilon(row), row.epsilon)),
    ]
    if run.dense:
        columns.append(_Column("mIoU %", "under the attack", lambda row: _share(row.mean_iou)))
        if any(row.mean_iou_interval is not None for row in run.rows):
            columns.append(_interval("bootstrap over images"))
        explained = "pixels right when clean and under the attack"
        columns.append(
            _Column("robust pixels %", explained, lambda row: _share(row.robust_accuracy))
        )
    else:
        explained = "right when clean and under the attack"
        columns.append(_Column("robust %", explained, lambda row: _share(figure_of(row))))
        columns.append(_interval("exact (Clopper and Pearson)"))
    if any(row.isolated_accuracy is not None for row in run.rows):
        explained = "right where the attacked part alone sees the attack"
        columns.append(_Column("isolated %", explained, lambda row: _share(row.isolated_accuracy)))
    if run.experts > 1:
        explained = "examples whose first expert changed"
        columns.append(_Column("flipped %", explained, lambda row: _share(row.flip_rate)))
    columns += [
        _Column("gradients", "for each example", lambda row: _number(row.gradient_evaluations, 0)),
        _Column("seconds", "on all examples, compiled", lambda row: _number(row.seconds, 1)),
    ]
    for name in next((row.measures for row in run.rows if row.measures), {}):
        columns.append(_measure(name))
    return columns


def _measure(name: str) -> _Column:
    title = MEASURES[name].title if name in MEASURES else name
    return _Column(title, "a measure", lambda row: _number((row.measures or {}).get(name), 3))


def _share(value: float | None) -> Cell:
    return Cell(percent(value), value)


def _number(value: float | None, digits: int) -> Cell:
    return Cell(UNKNOWN if value is None else f"{value:.{digits}f}", value)
