"""Curves: accuracy against ε and against gradients, losses against steps, training."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from jaxmoe.attacks import ATTACKS
from jaxmoe.evaluation.engine.rows import Row, limits
from jaxmoe.reporting.page.figures.lines import Axis, Line, axis_of, chart, log_axis, percent_axis
from jaxmoe.reporting.page.gather import RunFiles
from jaxmoe.reporting.page.wording import PARTS, epsilon, figure_of, part_of

_MOST_POINTS = 240  # of a training curve; more are not to be seen
_SERIES = 8  # colours


class Curve(NamedTuple):
    """A chart with its title, its legend of `(kind, name)`, and a sentence."""

    title: str
    picture: Markup
    legend: list[tuple[str, str]]
    note: str


class Curves(NamedTuple):
    """The charts, and a small one of the loss of each attack."""

    charts: list[Curve]
    losses: list[Curve]


def curves(run: RunFiles) -> Curves:
    """Returns what can be drawn of a run."""
    found = [_against_epsilon(run), _against_gradients(run), *_training(run)]
    return Curves([curve for curve in found if curve is not None], _losses(run))


def _what(run: RunFiles) -> str:
    return "mIoU" if run.dense else "robust accuracy"


def _against_epsilon(run: RunFiles) -> Curve | None:
    """The strongest attack on each part, thin lines of single ones, and the worst case."""
    if not run.attacks:
        return None
    norm, clean = run.clean.norm, run.clean
    scale = 255 if norm == "linf" else 1
    by_part: dict[str, dict[str, list[Row]]] = {}
    for row in run.attacks:
        by_part.setdefault(part_of(row.attack), {}).setdefault(row.attack, []).append(row)
    lines, legend = [], []
    for part in (part for part in PARTS if part in by_part):
        for name, rows in by_part[part].items():
            lines.append(Line(name, _points([clean, *rows], scale), part, weight="thin"))
        radii = sorted({row.epsilon for rows in by_part[part].values() for row in rows})
        least = [clean]
        for radius in radii:
            here = (row for rows in by_part[part].values() for row in rows)
            least.append(min((row for row in here if row.epsilon == radius), key=figure_of))
        name = f"strongest {PARTS[part]}" if part != "others" else "other attacks"
        lines.append(Line(name, _points(least, scale), part, band(least, scale)))
        legend.append((part, name))
    if run.worst:
        worst = [clean, *run.worst]
        lines.append(Line("worst case", _points(worst, scale), "worst", band(worst, scale)))
        legend.append(("worst", "worst case"))
    radii = sorted({row.epsilon for row in run.rows})
    ticks = [(scale * radius, _radius(radius, norm)) for radius in radii]
    label = "ε, grey levels of 255" if norm == "linf" else "ε, pixel units"
    across = Axis(label, 0.0, max(scale * radii[-1], 1e-9), ticks)
    said = f"{_what(run)} against ε, by the part that is attacked"
    down = percent_axis(f"{_what(run)}, %")
    drawn = any(line.band for line in lines)
    note = ("Bands are 95 % intervals. " if drawn else "") + "Thin lines are single attacks."
    return Curve("Accuracy against ε", chart(said, lines, across, down), legend, note)


def _radius(radius: float, norm: str) -> str:
    return f"{255 * radius:.3g}" if norm == "linf" else f"{radius:.3g}"


def _points(rows: Sequence[Row], scale: float) -> list[tuple[float, float]]:
    return sorted((scale * row.epsilon, 100 * figure_of(row)) for row in rows)


def band(rows: Sequence[Row], scale: float) -> list[tuple[float, float, float]]:
    """Returns the intervals of rows by ε, as a line's band: scaled ε, %, %."""
    found = []
    for row in sorted(rows, key=lambda row: row.epsilon):
        if (between := limits(row)) is not None:
            low, high = between
            found.append((scale * row.epsilon, 100 * low, 100 * high))
    return found


def _against_gradients(run: RunFiles) -> Curve | None:
    """Each attack at the largest ε as a point: equal cost is one vertical line."""
    if not run.attacks:
        return None
    radius = max(row.epsilon for row in run.attacks)
    rows = [row for row in run.attacks if row.epsilon == radius and row.gradient_evaluations > 0]
    spent = sorted({row.gradient_evaluations for row in rows})
    if len(spent) < 2:  # at one cost the table says as much
        return None
    parts = dict.fromkeys(part for part in PARTS for row in rows if part_of(row.attack) == part)
    lines = []
    for row in rows:
        point = (row.gradient_evaluations, 100 * figure_of(row))
        lines.append(Line(row.attack, [point], part_of(row.attack), weight="points"))
    across = log_axis("gradients for each example", spent)
    down = percent_axis(f"{_what(run)}, %")
    said = f"{_what(run)} against gradients spent at ε = {epsilon(rows[0])}"
    legend = [(part, f"attack {PARTS[part]}") for part in parts]
    note = f"At ε = {epsilon(rows[0])}. A lower point at the same place is a stronger attack."
    return Curve("Accuracy against gradients spent", chart(said, lines, across, down), legend, note)


def _losses(run: RunFiles) -> list[Curve]:
    """The mean loss of each attack at its largest ε, its first start alone."""
    last: dict[str, Row] = {}
    for row in run.attacks:
        if row.loss_trace and (row.attack not in last or row.epsilon > last[row.attack].epsilon):
            last[row.attack] = row
    found = []
    for row in last.values():
        queries = row.attack in ATTACKS and ATTACKS[row.attack].black_box
        first = row.loss_trace[: row.steps + 1] if row.steps and not queries else row.loss_trace
        points = [
            (float(step), value)
            for step, value in enumerate(first)
            if value is not None and math.isfinite(value)
        ]
        if len(points) < 2:
            continue
        end, trace = points[-1][0], [value for _, value in points]
        across = axis_of("looks" if queries else "steps", [0.0, end], parts=2)._replace(high=end)
        said = f"loss of {row.attack} from {trace[0]:.3g} to {trace[-1]:.3g}"
        line = Line(row.attack, points, part_of(row.attack))
        picture = chart(said, [line], across, axis_of("", trace, parts=2))
        found.append(Curve(row.attack, picture, [], f"{trace[0]:.3g} → {trace[-1]:.3g}"))
    return found


def _training(run: RunFiles) -> list[Curve]:
    losses, judged = {}, {}
    for entry in run.metrics:
        for name, value in entry.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                continue
            validated = name.startswith("validation/")
            if name.endswith("/loss") and not validated:
                losses.setdefault(name.removesuffix("/loss"), []).append((entry["step"], value))
            elif validated and name.endswith("accuracy"):
                short = name.removeprefix("validation/")
                judged.setdefault(short, []).append((entry["step"], 100 * value))
    found = []
    if losses:
        values = [value for line in losses.values() for _, value in line]
        found.append(_training_curve("Training loss", losses, axis_of("loss", values)))
    if judged:
        found.append(_training_curve("Validation while training", judged, percent_axis("%")))
    return found


def _training_curve(title: str, series: dict[str, list], down: Axis) -> Curve:
    lines, legend = [], []
    for place, (name, points) in enumerate(series.items()):
        kind, thinner = f"series{place % _SERIES}", max(1, len(points) // _MOST_POINTS)
        name, last = name.replace("_", " "), len(points) - 1
        shown = [point for i, point in enumerate(points) if i % thinner == 0 or i == last]
        lines.append(Line(name, shown, kind))
        legend.append((kind, name))
    steps = [step for line in lines for step, _ in line.points]
    across = axis_of("steps of all stages", steps, from_zero=True)
    said = f"{title} against steps: {', '.join(name for _, name in legend)}"
    return Curve(title, chart(said, lines, across, down), legend, "")
