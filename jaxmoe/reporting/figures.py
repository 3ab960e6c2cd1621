"""Figures as PNG files. matplotlib is imported when one is drawn: it takes a second."""

import os
import pathlib
from collections.abc import Sequence

from jaxmoe.attacks import ATTACKS
from jaxmoe.evaluation.rows import CLEAN, WORST_CASE, Row

# What an attack is aimed at shows in its line, its place among attacks on the same in its colour.
_LINES = {"model": "-", "router": "--", "experts": ":", "joint": "-."}
_COLOURS = 10  # of matplotlib's cycle
_MARKERS = "osD^"  # from one round of the colours to the next


def plot_robust_accuracy(rows: Sequence[Row], path: str | os.PathLike) -> pathlib.Path:
    """Draws robust accuracy against ε, a line for each attack that starts at clean accuracy.

    Args:
      rows: of a suite.
      path: of the PNG file, or of a folder, where it is called `robust_accuracy.png`.

    Returns:
      The file's path.
    """
    # Not pyplot: it has a global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = pathlib.Path(path)
    if path.suffix != ".png":
        path = path / "robust_accuracy.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    clean = [row.robust_accuracy for row in rows if row.attack == CLEAN]
    grey_levels = all(row.norm == "linf" for row in rows)
    scale = 255 if grey_levels else 1
    for attack in dict.fromkeys(row.attack for row in rows if row.attack != CLEAN):
        points = sorted((r.epsilon, r.robust_accuracy) for r in rows if r.attack == attack)
        if clean and points[0][0] > 0:
            points.insert(0, (0.0, clean[0]))
        axes.plot(
            [epsilon * scale for epsilon, _ in points],
            [100 * accuracy for _, accuracy in points],
            markersize=4,
            label=attack,
            **_style(attack),
        )
    axes.set_xlabel("ε, grey levels of 255" if grey_levels else "ε, pixel units")
    axes.set_ylabel("robust accuracy, %")
    axes.set_ylim(-2, 102)
    axes.grid(alpha=0.3)
    if axes.lines:
        first = rows[0]
        axes.set_title(
            f"n = {first.n} clips, norm {first.norm}, seed {first.seed}", fontsize="small"
        )
        figure.legend(loc="outside right upper", fontsize="small", handlelength=3)
    figure.savefig(path, dpi=150)
    return path


def _style(attack: str) -> dict[str, str | float]:
    if attack == WORST_CASE:
        return {"color": "black", "linewidth": 2.5, "marker": "o"}
    if attack not in ATTACKS:
        return {"linewidth": 1.2, "marker": "o"}
    component = ATTACKS[attack].component
    alike = [name for name, other in ATTACKS.items() if other.component == component]
    place = alike.index(attack)
    return {
        "color": f"C{place % _COLOURS}",
        "linestyle": _LINES[component],
        "marker": _MARKERS[place // _COLOURS % len(_MARKERS)],
        "linewidth": 1.2,
    }
