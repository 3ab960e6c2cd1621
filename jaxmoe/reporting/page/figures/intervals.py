"""Figures with intervals, a line for each name: a forest plot."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from jaxmoe.reporting.page.figures.lines import Axis, mark
from jaxmoe.reporting.page.figures.svg import element, picture, text

_WIDTH, _NAMES, _RIGHT, _BOTTOM = 480.0, 172.0, 14.0, 40.0  # 480: legible on a phone
_APART, _BETWEEN = 9.0, 8.0  # of a name's figures, and more between two names


class Interval(NamedTuple):
    """One figure of a line.

    Attributes:
      kind: a series of the page's colours, as in `lines.Line`.
      name: what the figure is.
      value: the figure, in the axis's units.
      low: its interval's least value.
      high: its largest.
    """

    kind: str
    name: str
    value: float
    low: float
    high: float


def intervals(label: str, rows: Sequence[tuple[str, Sequence[Interval]]], axis: Axis) -> Markup:
    """Returns a line for each name with its figures; `label` says in words what they show."""
    high = _APART * max(len(figures) for _, figures in rows) + _BETWEEN
    bottom = high * len(rows) + 8
    drawn = []

    def across(value: float) -> float:
        return _NAMES + (_WIDTH - _NAMES - _RIGHT) * axis.place(value)

    for value, said in axis.ticks:
        x = across(value)
        drawn.append(element("line", x1=x, x2=x, y1=4.0, y2=bottom, class_="grid"))
        drawn.append(text(x, bottom + 16, said, "middle", "tick"))
    drawn.append(text((_NAMES + _WIDTH) / 2, bottom + 34, axis.label, "middle", "label"))
    for place, (name, figures) in enumerate(rows):
        middle = high * (place + 0.5) + 4
        drawn.append(text(_NAMES - 12, middle + 4, name, "end", "small"))
        for number, each in enumerate(figures):
            y = middle + _APART * (number - (len(figures) - 1) / 2)
            ends = {"x1": across(each.low), "x2": across(each.high), "y1": y, "y2": y}
            drawn.append(element("line", **ends, class_=f"line stroke-{each.kind}"))
            said = f"{name}, {each.name}: {each.value:.1f} ({each.low:.1f} to {each.high:.1f})"
            drawn.append(mark(each.kind, across(each.value), y, said))
    return picture(label, _WIDTH, bottom + _BOTTOM, *drawn, kind="forest")
