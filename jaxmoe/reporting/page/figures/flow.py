"""The flow of examples from their clean expert, on the left, to the one under attack, on the right.

Axes: M = experts.
"""

import numpy as np
from jaxtyping import Int
from markupsafe import Markup

from jaxmoe.reporting.page.figures.svg import element, number, picture, text

MOST_RIBBONS = 8  # experts; more of them are a heat map
_WIDTH, _HEIGHT, _GAP, _BAR = 440.0, 250.0, 8.0, 12.0
_LEFT, _RIGHT = 64.0, 376.0  # inner edges of the two columns
_TOP = 22.0


def ribbons(counts: Int[np.ndarray, "M M"], label: str) -> Markup:
    """Returns the flow as ribbons.

    Args:
      counts: examples by clean expert (row) and expert under attack (column), one at least.
      label: what it shows, in words.
    """
    room = _HEIGHT - _TOP - 6 - _GAP * (len(counts) - 1)
    unit = room / counts.sum()
    left, right = _tops(counts.sum(1), unit), _tops(counts.sum(0), unit)
    drawn = [
        text(_LEFT, 12, "clean", "end", "label"),
        text(_WIDTH, 12, "under attack", "end", "label"),
    ]
    out, into = left.copy(), right.copy()
    for clean, adversarial in np.argwhere(counts):
        count = int(counts[clean, adversarial])
        thick = count * unit
        drawn.append(_ribbon(clean, adversarial, count, out[clean], into[adversarial], thick))
        out[clean] += thick
        into[adversarial] += thick
    for side, tops, sums in (("left", left, counts.sum(1)), ("right", right, counts.sum(0))):
        for expert, count in enumerate(sums.tolist()):
            drawn += _node(side, expert, count, tops[expert], count * unit)
    return picture(label, _WIDTH, _HEIGHT, *drawn, kind="flow")


def _tops(sums: np.ndarray, unit: float) -> np.ndarray:
    ends = np.cumsum(sums * unit + _GAP)
    return _TOP + np.concatenate([[0.0], ends[:-1]])


def _ribbon(clean: int, to: int, count: int, start: float, end: float, thick: float) -> Markup:
    a, b, middle = map(number, (_LEFT + _BAR, _RIGHT - _BAR, (_LEFT + _RIGHT) / 2))
    low, high = number(start), number(end)
    low_end, high_end = number(start + thick), number(end + thick)
    d = (
        f"M{a} {low}C{middle} {low} {middle} {high} {b} {high}"
        f"L{b} {high_end}C{middle} {high_end} {middle} {low_end} {a} {low_end}Z"
    )
    stays = clean == to
    said = f"stay at expert {to}" if stays else f"turn from expert {clean} to {to}"
    return element("path", element("title", f"{count} {said}"), d=d, class_=_kind(stays))


def _kind(stays: bool) -> str:
    return "ribbon stays" if stays else "ribbon turns"


def _node(side: str, expert: int, count: int, top: float, height: float) -> list[Markup]:
    x = _LEFT if side == "left" else _RIGHT - _BAR
    place, anchor = (_LEFT - 6, "end") if side == "left" else (_RIGHT + 6, "start")
    bar = element("rect", x=x, y=top, width=_BAR, height=max(height, 1.0), class_="node")
    said = f"E{expert} · {count}"
    return [bar, text(place, top + max(height, 8.0) / 2 + 4, said, anchor, "tick")]
