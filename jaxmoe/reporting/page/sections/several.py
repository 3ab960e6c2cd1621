"""Several runs side by side: their figures, differences over the same examples, transfer."""

import collections
import itertools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from jaxmoe.evaluation.engine.rows import Row
from jaxmoe.reporting.page.figures.lines import Axis, Line, chart, percent_axis
from jaxmoe.reporting.page.gather import RunFiles, read_transfer
from jaxmoe.reporting.page.sections.curves import Curve, band
from jaxmoe.reporting.page.sections.pairs import Paired, all_paired
from jaxmoe.reporting.page.sections.verdict import model_of, training_of
from jaxmoe.reporting.page.wording import (
    NORMS,
    UNKNOWN,
    figure_of,
    percent,
    range_of,
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
    training: str  # its time and steps
    seconds: float  # of it, −1 where it is not known
    start: str  # the run on the page that this one began with
    attacks: int
    otherwise: bool  # judged by other attacks, or with other settings, than the first
    flags: int
    checks: str  # how many failed of those that ran


class Matrix(NamedTuple):
    """A transfer matrix, cells as text and 0–1."""

    title: str
    targets: tuple[str, ...]
    rows: list[tuple[str, list[tuple[str, float]]]]


class Several(NamedTuple):
    """The comparison: an overview, a chart, paired differences and transfer matrices."""

    titles: list[str]
    runs: list[Overview]
    unlike: list[str]  # sentences on runs that were judged otherwise than the first
    curve: Curve | None
    paired: list[Paired]
    unpaired: list[str]  # sentences on runs without
    transfer: list[Matrix]


_Ball = tuple[str, float]  # a norm and a radius


def several(runs: Sequence[RunFiles]) -> Several:
    """Returns the comparison of two runs at least."""
    first = runs[0]
    balls = sorted({_ball(row) for run in runs for row in run.worst})
    norms = {norm for norm, _ in balls}
    titles = ["clean %", *(f"worst case at {_of_ball(ball, len(norms) > 1)} %" for ball in balls)]
    unlike = {run.name: _unlike(first, run) for run in runs[1:]}
    overviews = [
        _overview(run, place, balls, bool(unlike.get(run.name)), _start(run, runs))
        for place, run in enumerate(runs)
    ]
    pairs, why = all_paired(runs)
    return Several(
        titles,
        overviews,
        [f"{who}, judged otherwise than {first.name}: {said}." for who, said in _told(unlike)],
        _curve(runs, any(unlike.values())),
        pairs,
        [f"No paired difference of {who}: {reason}." for who, reason in _told(why)],
        transfer_of(runs),
    )


def _told(said: dict[str, str]) -> list[tuple[str, str]]:
    """Sentences on runs; those with the same sentence stand together."""
    return [
        (in_words([name for name, own in said.items() if own == text], 8), text)
        for text in dict.fromkeys(filter(None, said.values()))
    ]


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


def _ball(row: Row) -> _Ball:
    return row.norm, round(row.epsilon, 9)


def _of_ball(ball: _Ball, named: bool) -> str:
    norm, radius = ball
    said = format_epsilon(radius, norm)
    return f"{NORMS.get(norm, norm)} {said}" if named else said


def _start(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    """The name of the run whose params a run began with, where it is on the page.

    A path of another folder or machine counts by its end; its last name has to be the run's.
    """
    path = run.config.get("training", {}).get("initialize_from")
    if not path or run.part is not None:
        return ""
    parts, most, found = pathlib.Path(str(path)).parts[::-1], 0, ""
    for other in (each for each in runs if each is not run and each.part is None):
        folder = other.folder.resolve() / str(other.details.get("run") or "")
        own = folder.resolve().parts[::-1]
        pairs = zip(parts, own, strict=False)
        alike = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
        if alike > most:
            most, found = alike, other.name
    return found


def _overview(
    run: RunFiles, place: int, balls: list[_Ball], otherwise: bool, start: str
) -> Overview:
    worst = {_ball(row): row for row in run.worst}
    rows = [run.clean, *(worst.get(ball) for ball in balls)]
    recipe = str(run.config.get("recipe", {}).get("name", ""))
    flags = sum(check.verdict == "flag" for check in run.checks)
    return Overview(
        run.name,
        place,
        model_of(run.config, run.part),
        recipe,
        [(UNKNOWN, "") if row is None else _figure(row) for row in rows],
        training_of(run) or UNKNOWN,
        float(run.trained.get("seconds", -1)),
        start,
        len(_settings(run)),
        otherwise,
        flags,
        _failed(run, flags),
    )


def _failed(run: RunFiles, flags: int) -> str:
    ran = sum(check.verdict != "not run" for check in run.checks)
    left = len(run.checks) - ran
    return (f"{flags} of {ran}" if ran else "none ran") + (f", {left} not run" if left else "")


def _figure(row: Row) -> tuple[str, str]:
    between = range_of(row)
    if row.mean_iou is not None:
        between = f"mIoU, {between}" if between else "mIoU"
    return percent(figure_of(row)), between


def _settings(run: RunFiles) -> dict[str, dict[str, object]]:
    """The settings of each attack, as far as rows say them."""
    found = {}
    for row in run.attacks:
        stages, steps, restarts = run.made_of(row.attack) or (None, row.steps, row.restarts)
        own = {"steps": steps, "restarts": restarts, "gradient": row.gradient, "stages": stages}
        found[row.attack] = own
    return found


def _unlike(first: RunFiles, run: RunFiles) -> str:
    """In words how a run was judged otherwise than the first; nothing where it was alike."""
    said = []
    if first.clean.norm != run.clean.norm:
        norms = [NORMS.get(own.clean.norm, own.clean.norm) for own in (run, first)]
        said.append("in {} rather than {}".format(*norms))
    before, own = _settings(first), _settings(run)
    if less := [name for name in before if name not in own]:
        said.append(f"without {in_words(less, 12)}")
    if more := [name for name in own if name not in before]:
        said.append(f"with {in_words(more, 12)} besides")
    changes: dict[str, list[str]] = {}
    for name in own:
        for field, value in own[name].items() if name in before else ():
            other = before[name][field]
            if None not in (value, other) and value != other:
                changes.setdefault(f"{field} {value} rather than {other}", []).append(name)
    said += [f"{in_words(names, 12)} with {change}" for change, names in changes.items()]
    kept = [each.details.get("settings") or {} for each in (first, run)]
    for field in (field for field in kept[1] if field not in ("steps", "restarts", "gradient")):
        value, other = kept[1][field], kept[0].get(field)
        if None not in (value, other) and value != other:
            said.append(f"with {field} {value} rather than {other}")
    return "; ".join(said)


def _curve(runs: Sequence[RunFiles], unlike: bool) -> Curve | None:
    """The worst cases of the runs in the norm that most of them have."""
    norms = collections.Counter(run.clean.norm for run in runs if run.worst)
    norm = norms.most_common(1)[0][0] if norms else ""
    scale = 255 if norm == "linf" else 1
    lines, legend = [], []
    for place, run in enumerate(runs):
        if not run.worst or run.clean.norm != norm:
            continue
        kind, rows = f"series{place % 8}", [run.clean, *run.worst]
        points = [(scale * row.epsilon, 100 * figure_of(row)) for row in rows]
        lines.append(Line(run.name, points, kind, band(rows, scale) if len(rows) > 1 else []))
        legend.append((kind, run.name))
    if len(lines) < 2:
        return None
    places = sorted({x for line in lines for x, _ in line.points})
    label = "ε, grey levels of 255" if norm == "linf" else "ε, pixel units"
    across = Axis(label, 0.0, places[-1] or 1.0, [(x, f"{x:.3g}") for x in places])
    said = f"worst case of each run against ε: {', '.join(name for _, name in legend)}"
    picture = chart(said, lines, across, percent_axis("worst case, %"))
    notes = ["Bands are 95 % intervals."] if any(line.band for line in lines) else []
    if len(norms) > 1:
        notes.append(f"Runs in {NORMS.get(norm, norm)} alone.")
    if unlike:
        notes.append("Not all runs were judged by the same attacks, as the table says.")
    return Curve("Worst case of each run", picture, legend, " ".join(notes))
