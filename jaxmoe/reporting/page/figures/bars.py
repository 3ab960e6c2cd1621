"""Bars of experts, clean beside under attack. Axes: M = experts."""

from collections.abc import Sequence

from markupsafe import Markup

from jaxmoe.reporting.page.figures.svg import element, picture, text

_WIDTH, _HEIGHT, _BASE, _TOP = 440.0, 150.0, 124.0, 16.0
_SAID_UP_TO = 8  # experts whose shares are written above their bars


def pairs(
    clean: Sequence[float], adversarial: Sequence[float] | None, label: str, *, kind: str = "bars"
) -> Markup:
    """Returns two bars for each expert: hollow when clean, full under attack.

    Few experts have a scale from 0 to 1 and their shares written; of many the largest bar is as
    high as the figure, and is named.

    Args:
      clean: `[M]`, 0–1.
      adversarial: the same under attack; None where it is not known.
      label: what it shows, in words.
      kind: of the figure, which decides its size.
    """
    count = len(clean)
    step = (_WIDTH - 8) / count
    known = [value for value in (*clean, *(adversarial or ())) if value == value]
    largest = 1.0 if count <= _SAID_UP_TO else max(max(known, default=1.0), 1e-9)
    wide = min(0.38 * step, 26.0)
    drawn = [element("line", x1=0, x2=_WIDTH, y1=_BASE, y2=_BASE, class_="axis")]
    if count > _SAID_UP_TO:
        drawn.append(text(0, 12, f"the largest is {100 * largest:.1f} %", "start", "tick"))
    for place, before in enumerate(clean):
        middle = 4 + step * (place + 0.5)
        name = f"expert {place}, clean"
        drawn += _bar(middle - wide - 0.5, wide, before, largest, "clean", name)
        if adversarial is not None:
            after = adversarial[place]
            name = f"expert {place}, under attack"
            drawn += _bar(middle + 0.5, wide, after, largest, "attacked", name)
        if count <= 16 or place % 8 == 0:
            drawn.append(text(middle, _BASE + 17, f"E{place}", "middle", "tick"))
        if count <= _SAID_UP_TO:
            drawn += _shares(middle, wide, before, adversarial and adversarial[place])
    return picture(label, _WIDTH, _HEIGHT, *drawn, kind=kind)


def _bar(
    x: float, wide: float, value: float, largest: float, state: str, name: str
) -> list[Markup]:
    if value != value:
        return []
    high = max(value, 0.0) / largest * (_BASE - _TOP)
    title = element("title", f"{name}: {100 * value:.1f} %")
    own = {"x": x, "y": _BASE - high, "width": wide, "height": max(high, 0.5)}
    return [element("rect", title, **own, class_=f"bar {state}")]


def _shares(middle: float, wide: float, before: float, after: float | None) -> list[Markup]:
    drawn = []
    for value, x in ((before, middle - wide / 2 - 1), (after, middle + wide / 2 + 1)):
        if value is not None and value == value:
            y = _BASE - max(value, 0.0) * (_BASE - _TOP) - 4
            drawn.append(text(x, y, f"{100 * value:.0f}", "middle", "small"))
    return drawn
