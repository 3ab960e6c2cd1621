"""Figures as PNG files. matplotlib is imported when one is drawn: it takes a second."""

import os
import pathlib
from collections.abc import Sequence

from jaxmoe.evaluation.rows import CLEAN, WORST_CASE, Row


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
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    clean = [row.robust_accuracy for row in rows if row.attack == CLEAN]
    grey_levels = all(row.norm == "linf" for row in rows)
    scale = 255 if grey_levels else 1
    for attack in dict.fromkeys(row.attack for row in rows if row.attack != CLEAN):
        points = sorted((r.epsilon, r.robust_accuracy) for r in rows if r.attack == attack)
        if clean and points[0][0] > 0:
            points.insert(0, (0.0, clean[0]))
        worst = attack == WORST_CASE
        axes.plot(
            [epsilon * scale for epsilon, _ in points],
            [100 * accuracy for _, accuracy in points],
            marker="o",
            label=attack,
            color="black" if worst else None,
            linewidth=2.5 if worst else 1.2,
        )
    axes.set_xlabel("ε, grey levels of 255" if grey_levels else "ε, pixel units")
    axes.set_ylabel("robust accuracy, %")
    axes.set_ylim(-2, 102)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    return path
