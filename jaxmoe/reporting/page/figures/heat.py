"""Heat strips as SVG, and heat maps as small PNG pictures whose values are their opacity."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from jaxmoe.reporting.page.figures.svg import element, picture, text

_WIDTH, _CELL = 440.0, 18.0
_ACCENT = (47, 123, 191)  # seen on white and on near-black alike


def strip(values: Sequence[float], label: str, titles: Sequence[str]) -> Markup:
    """Returns one row of cells, the darker the larger; NaN is an empty cell.

    Args:
      values: ≥ 0.
      label: what it shows, in words.
      titles: of each cell.
    """
    values = np.asarray(values, np.float64)
    largest = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    step = _WIDTH / max(len(values), 1)
    drawn = []
    for place, (value, title) in enumerate(zip(values.tolist(), titles, strict=True)):
        share = value / largest if largest > 0 and value == value else 0.0
        own = {"x": step * place + 0.5, "y": 0.5, "width": step - 1, "height": _CELL - 1}
        cell = element("title", title)
        drawn.append(element("rect", cell, **own, class_="heat", fill_opacity=round(share, 3)))
    return picture(label, _WIDTH, _CELL, *drawn, kind="strip", stretched=True)


def heat_map(
    values: Float[np.ndarray, "rows columns"], label: str, down: str, across: str
) -> Markup:
    """Returns a matrix as a picture with its axes named, first row on top; NaN is empty.

    Args:
      values: of any range ≥ 0; the largest is opaque.
      label: what it shows, in words.
      down: what the rows are.
      across: what the columns are.
    """
    rows, columns = values.shape
    wide, high = 390.0, 390.0 * min(rows / columns, 1.0)
    high = max(high, 60.0)
    frame = element("rect", x=26.0, y=4.0, width=wide, height=high, class_="frame")
    image = element(
        "image",
        href=opacity_png(values),
        x=26.0,
        y=4.0,
        width=wide,
        height=high,
        preserveAspectRatio="none",
        class_="pixels",
    )
    turn = f"rotate(-90 12 {4 + high / 2:.0f})"
    middle = 4 + high / 2
    beside = element(
        "text", down, x=12, y=middle, text_anchor="middle", class_="label", transform=turn
    )
    below = text(26 + wide / 2, high + 24, across, "middle", "label")
    return picture(label, _WIDTH, high + 32, frame, image, beside, below, kind="map")


def opacity_png(values: Float[np.ndarray, "rows columns"]) -> str:
    """Returns a matrix as a data URI: one pixel for each value, the largest opaque."""
    from PIL import Image

    known = np.nan_to_num(np.asarray(values, np.float64), nan=0.0)
    largest = known.max() if known.size and known.max() > 0 else 1.0
    alpha = (255 * np.clip(known / largest, 0, 1) ** 0.6).astype(np.uint8)  # few are to be seen
    colour = np.broadcast_to(np.array(_ACCENT, np.uint8), (*alpha.shape, 3))
    written = io.BytesIO()
    picture_of = Image.fromarray(np.concatenate([colour, alpha[..., None]], axis=-1))
    picture_of.save(written, format="PNG", optimize=True)
    return data_uri(written.getvalue())


def data_uri(png: bytes) -> str:
    """Returns the bytes of a PNG file as a URI that holds them."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
