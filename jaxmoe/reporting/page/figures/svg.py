"""SVG elements as text that is safe inside a page: every attribute and every word is escaped."""

from typing import Any

from markupsafe import Markup, escape


def element(name: str, *children: Any, **attributes: Any) -> Markup:
    """Returns one element.

    Args:
      name: of the element.
      *children: markup as it is, anything else as escaped text.
      **attributes: a trailing underscore is cut off and others become hyphens (`class_`,
        `text_anchor`); floats are rounded to hundredths; None is left out.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, inside)


def picture(
    label: str,
    width: float,
    height: float,
    *children: Markup,
    kind: str = "",
    stretched: bool = False,
) -> Markup:
    """Returns a figure that a screen reader reads as one image with this label.

    Args:
      label: what it shows, in words.
      width: of its coordinates.
      height: of its coordinates.
      *children: its elements.
      kind: a class that decides how large it is drawn.
      stretched: whether it fills its place in both directions.
    """
    box = f"0 0 {number(width)} {number(height)}"
    return element(
        "svg",
        *children,
        class_=f"figure {kind}".strip(),
        viewBox=box,
        preserveAspectRatio="none" if stretched else None,
        role="img",
        aria_label=label,
    )


def text(x: float, y: float, said: str, anchor: str = "start", kind: str | None = None) -> Markup:
    """Returns words at a place; `anchor` is start, middle or end."""
    return element("text", said, x=x, y=y, text_anchor=anchor, class_=kind)


def path(points: list[tuple[float, float]], *, close: bool = False) -> str:
    """Returns the `d` of a line through points."""
    joined = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return f"M{joined}{'Z' if close else ''}"


def number(value: float) -> str:
    """Returns a coordinate in hundredths at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _value(value: Any) -> Any:
    return number(value) if isinstance(value, float) else value
