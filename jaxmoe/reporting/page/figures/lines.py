"""Line charts with bands, and charts of points, against one axis."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from jaxmoe.reporting.page.figures.svg import element, path, picture, text

WIDTH, HEIGHT = 440.0, 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 12.0, 42.0
_MARK = 6.0  # of two marks nearer than this one covers the other
_NAMES = 3  # beside one mark
_SHAPES = {"model": "circle", "router": "square", "experts": "triangle", "joint": "diamond"}


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
      name: of the line, for a reader and its points' titles.
      points: `(x, y)` in the axes' units.
      kind: a series of the page's colours: a part that is attacked, `worst`, or `series0`, ….
      band: `(x, low, high)`, if it has one.
      weight: `bold`, `thin`, or `points` for no line at all.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str
    band: Sequence[tuple[float, float, float]] = ()
    weight: str = "bold"


class Axis(NamedTuple):
    """An axis.

    Attributes:
      label: what it is, with its unit.
      low: its least value.
      high: its largest value.
      ticks: where it has numbers, and what stands there.
      logarithmic: whether it is.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Returns where a value is, 0–1."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return (value - low) / (high - low) if high > low else 0.5


def chart(label: str, lines: Sequence[Line], x_axis: Axis, y_axis: Axis) -> Markup:
    """Returns a chart; `label` says in words what it shows."""
    across, down = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + across * x_axis.place(x), _TOP + down * (1 - y_axis.place(y))

    drawn = [*_grid(x_axis, y_axis, at)]
    drawn += [_band(line, at) for line in lines if len(line.band) > 1]
    drawn += [_line(line, at) for line in lines if line.weight != "points" and len(line.points) > 1]
    drawn += [mark for line in lines if line.weight != "thin" for mark in _marks(line, at, x_axis)]
    drawn += _names([line for line in lines if line.weight == "points"], at)
    return picture(label, WIDTH, HEIGHT, *drawn, kind="chart")


def percent_axis(label: str) -> Axis:
    """Returns an axis from 0 to 100 %."""
    return Axis(label, 0.0, 100.0, [(float(v), str(v)) for v in (0, 25, 50, 75, 100)])


def axis_of(
    label: str, values: Sequence[float], *, from_zero: bool = False, parts: int = 4
) -> Axis:
    """Returns an axis that holds all values, with round ticks at about so many parts."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = min(low, 0.0) if from_zero else low
    if high <= low:
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    step = _round_step((high - low) / parts)
    low = math.floor(low / step + 1e-9) * step
    count = math.ceil((high - low) / step - 1e-9)
    ticks = [low + step * i for i in range(count + 1)]
    return Axis(label, low, ticks[-1], [(tick, short(tick)) for tick in ticks])


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """Returns a logarithmic axis of positive values, with ticks at powers of ten, or 1, 2 and 5.

    Where these are fewer than two the ticks are the least and the largest value.
    """
    least, most = min(values), max(values)
    low, high = least / 1.3, most * 1.3
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in ((1,), (1, 2, 5)):
        ticks = [lead * 10.0**decade for decade in decades for lead in leads]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) > 2:
            break
    if len(ticks) < 2:
        ticks = [least] if least == most else [least, most]
    return Axis(label, low, high, [(tick, short(tick)) for tick in ticks], logarithmic=True)


def short(value: float) -> str:
    """Returns a number for a tick."""
    if abs(value) < 1e-12:
        return "0"
    if abs(value) >= 10_000:
        return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def _round_step(step: float) -> float:
    scale = 10.0 ** math.floor(math.log10(step))
    return next(lead * scale for lead in (1, 2, 2.5, 5, 10) if lead * scale >= step * (1 - 1e-9))


_At = Callable[[float, float], tuple[float, float]]


def _grid(x_axis: Axis, y_axis: Axis, at: _At) -> list[Markup]:
    drawn = []
    bottom = HEIGHT - _BOTTOM
    for value, said in y_axis.ticks:
        _, y = at(x_axis.low, value)
        drawn.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        drawn.append(text(_LEFT - 6, y + 4, said, "end", "tick"))
    before = -math.inf
    for value, said in x_axis.ticks:
        x, _ = at(value, y_axis.low)
        if x - before < 7.0 * len(said) + 8:  # two numbers would touch
            continue
        before = x
        drawn.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        drawn.append(text(x, bottom + 17, said, "middle", "tick"))
    drawn.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom, class_="axis"))
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    drawn.append(text(middle, HEIGHT - 6, x_axis.label, "middle", "label"))
    turned = f"rotate(-90 12 {(_TOP + bottom) / 2:.0f})"
    own = element(
        "text",
        y_axis.label,
        x=12,
        y=(_TOP + bottom) / 2,
        text_anchor="middle",
        class_="label",
        transform=turned,
    )
    return [*drawn, own]


def _band(line: Line, at: _At) -> Markup:
    above = [at(x, high) for x, _, high in line.band]
    below = [at(x, low) for x, low, _ in reversed(line.band)]
    return element("path", d=path(above + below, close=True), class_=f"band fill-{line.kind}")


def _line(line: Line, at: _At) -> Markup:
    points = [at(x, y) for x, y in line.points]
    return element("path", d=path(points), class_=f"line {line.weight} stroke-{line.kind}")


def _marks(line: Line, at: _At, x_axis: Axis) -> list[Markup]:
    """The points as marks that say what they are; many points of one line have none."""
    if line.weight == "bold" and len(line.points) > 24:
        return []
    said = dict(x_axis.ticks)
    return [
        mark(
            line.kind,
            *at(x, y),
            f"{line.name}: {short(y)} at {said.get(x, short(x))}",
        )
        for x, y in line.points
    ]


def _names(lines: Sequence[Line], at: _At) -> list[Markup]:
    """The names of single points, beside them, but for those that would cover another's.

    Points whose marks cover each other have their names together.
    """
    drawn, taken = [], []
    together: list[tuple[float, float, list[str]]] = []
    for line in lines:
        x, y = at(*line.points[0])
        for a, b, names in together:
            if abs(x - a) < _MARK and abs(y - b) < _MARK:
                names.append(line.name)
                break
        else:
            together.append((x, y, [line.name]))
    for x, y, names in together:
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        name = ", ".join(names[:_NAMES]) + more
        wide = 7.0 * len(name)
        left = x + wide + 10 > WIDTH
        start = x - wide - 8 if left else x
        if any(abs(y - b) < 13 and start < a + c and a < start + wide for a, b, c in taken):
            continue
        taken.append((start, y, wide))
        y = min(y + 4, HEIGHT - _BOTTOM - 5)  # above the axis
        drawn.append(text(x - 8 if left else x + 8, y, name, "end" if left else "start"))
    return drawn


def mark(kind: str, x: float, y: float, title: str | None = None) -> Markup:
    """Returns a mark of a series: each part has a shape of its own, so that colour is not all."""
    shape, inside = _SHAPES.get(kind, "circle"), [] if title is None else [element("title", title)]
    own = {"class_": f"mark fill-{kind}"}
    if shape == "circle":
        return element("circle", *inside, cx=x, cy=y, r=4.0, **own)
    if shape == "square":
        return element("rect", *inside, x=x - 3.6, y=y - 3.6, width=7.2, height=7.2, **own)
    corners = [(x, y - 4.8), (x + 4.6, y + 3.6), (x - 4.6, y + 3.6)]
    if shape == "diamond":
        corners = [(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y)]
    return element("path", *inside, d=path(corners, close=True), **own)
