"""Figures as PNG files. matplotlib is imported when one is drawn: it takes a second."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxmoe.attacks import ATTACKS
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE, Row
from jaxmoe.threat import format_epsilon

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What an attack is aimed at shows in its line, its place among attacks on the same in its colour.
_LINES = {"model": "-", "router": "--", "experts": ":", "joint": "-."}
_AIMS = {
    "model": "solid: on the whole",
    "router": "dashed: on the router",
    "experts": "dotted: on the experts",
    "joint": "dash-dotted: on both",
}
_COLOURS = 10  # of matplotlib's cycle
_MARKERS = "osD^"  # from one round of the colours to the next
_PANELS = 20  # of histograms in one figure


def plot_robust_accuracy(rows: Sequence[Row], path: str | os.PathLike) -> pathlib.Path:
    """Draws robust accuracy against ε, a line for each attack that starts at clean accuracy.

    Args:
      rows: of a suite.
      path: of the PNG file, or of a folder, where it is called `robust_accuracy.png`.

    Returns:
      The file's path.
    """
    path = pathlib.Path(path)
    if path.suffix != ".png":
        path = path / "robust_accuracy.png"
    first = rows[0]
    dense = first.mean_iou is not None
    field, figure = ("mean_iou", "mIoU") if dense else ("robust_accuracy", "robust accuracy")
    clean = [getattr(row, field) for row in rows if row.attack == CLEAN]
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.attack != CLEAN:
            curves.setdefault(row.attack, []).append((row.epsilon, getattr(row, field)))
    title = f"n = {first.n} clips, norm {first.norm}, seed {first.seed}"
    return plot_curves(curves, clean[0] if clean else None, path, title, first.norm, figure)


def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    clean: float | None,
    path: str | os.PathLike,
    title: str,
    norm: str,
    figure_of: str = "robust accuracy",
) -> pathlib.Path:
    """Draws robust accuracy, or another figure, against ε, a line for each attack.

    Args:
      curves: of each attack, `(ε in pixel units, robust accuracy 0–1)` in any order.
      clean: accuracy at ε = 0, if known.
      path: of the PNG file.
      title: what the clips were.
      norm: decides the unit of the axis: grey levels for `"linf"`.
      figure_of: what is drawn, 0–1.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    height = max(4.0, 0.8 + 0.2 * len(curves))  # inches, of which the legend's lines take 0.2 each
    figure = new_figure(7.2, height)
    axes = figure.add_subplot()
    grey_levels = norm == "linf"
    scale = 255 if grey_levels else 1
    for attack, curve in curves.items():
        points = sorted(curve)
        if clean is not None and points[0][0] > 0:
            points.insert(0, (0.0, clean))
        axes.plot(
            [epsilon * scale for epsilon, _ in points],
            [100 * accuracy for _, accuracy in points],
            markersize=4,
            label=attack,
            **_style(attack),
        )
    axes.set_xlabel("ε, grey levels of 255" if grey_levels else "ε, pixel units")
    axes.set_ylabel(f"{figure_of}, %")
    axes.set_ylim(-2, 102)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.set_title(title, fontsize="small")
        aims = {ATTACKS[attack].component for attack in curves if attack in ATTACKS}
        figure.legend(
            loc="outside right upper",
            fontsize="small",
            handlelength=3,
            title="\n".join(_AIMS[aim] for aim in _LINES if aim in aims and len(aims) > 1),
            title_fontsize="x-small",
            alignment="left",
        )
    figure.savefig(path, dpi=150)
    return path


def plot_bars(
    accuracies: Mapping[str, Mapping[str, float]],
    path: str | os.PathLike,
    title: str,
    figure_of: str = "accuracy",
) -> pathlib.Path:
    """Draws a group of bars for each attack, with a bar for each model.

    Args:
      accuracies: 0–1, of each model by attack; a model may lack some that another has.
      path: of the PNG file.
      title: what the accuracies are of.
      figure_of: what they are, if no accuracies.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = new_figure(7.2, 4.0)
    axes = figure.add_subplot()
    width = 0.8 / len(accuracies)
    fullest_first = sorted(accuracies.values(), key=len, reverse=True)
    attacks = list(dict.fromkeys(name for found in fullest_first for name in found))
    for place, (model, found) in enumerate(accuracies.items()):
        shift = (place - (len(accuracies) - 1) / 2) * width
        left = [attacks.index(name) + shift for name in found]
        bars = axes.bar(left, [100 * value for value in found.values()], 0.92 * width, label=model)
        axes.bar_label(bars, fmt="%.0f", fontsize="x-small")
    axes.set_xticks(range(len(attacks)), attacks)
    axes.set_ylabel(f"{figure_of}, %")
    axes.set_ylim(0, 102)
    axes.set_title(title, fontsize="small")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(accuracies), fontsize="small")
    figure.savefig(path, dpi=150)
    return path


def plot_margins(
    margins: Mapping[tuple[str, float], np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    path: str | os.PathLike,
    title: str,
    norm: str,
) -> pathlib.Path:
    """Draws a histogram for each class of how far the label's logit is above the next.

    Left of 0 an example is wrong. A model whose margins are small when clean has little to lose.

    Args:
      margins: [N] of each `(attack, ε)`, with `("clean", 0.0)`; those of the largest ε are drawn.
      labels: class of each example, [N]; one panel for all where they have none, [N, …].
      classes: their names; of more than twenty those with the smallest mean under attack.
      path: of the PNG file.
      title: what the examples are.
      norm: the unit of ε.
    """
    largest = max(epsilon for _, epsilon in margins)
    shown = {name: m for (name, epsilon), m in margins.items() if epsilon in (0.0, largest)}
    groups = {"all": np.ones(len(next(iter(shown.values()))), bool)}
    if labels.ndim == 1:
        groups = {name: labels == number for number, name in enumerate(classes)}
        groups = {name: members for name, members in groups.items() if members.any()}
        worst = np.min(list(shown.values()), axis=0)
        groups = dict(sorted(groups.items(), key=lambda group: worst[group[1]].mean())[:_PANELS])
    everything = np.concatenate(list(shown.values()))
    low, high = np.quantile(everything, [0.01, 0.99])  # a few huge ones would flatten all others
    bins = np.linspace(min(low, 0.0), max(high, 0.0) or 1.0, 17)
    across = min(len(groups), 4)
    down = -(-len(groups) // across)
    figure = new_figure(max(2.4 * across + 0.4, 6.0), 1.5 * down + 1.2)  # wide enough for the title
    panels = list(figure.subplots(down, across, squeeze=False, sharex=True).flat)
    for axes, (name, members) in zip(panels, groups.items(), strict=False):
        for attack, values in shown.items():
            own = np.clip(values[members], bins[0], bins[-1])
            axes.hist(own, bins, histtype="step", label=attack)
        axes.axvline(0.0, color="black", linewidth=0.6)
        axes.set_title(f"{name}, n = {members.sum()}", fontsize="x-small")
        axes.tick_params(labelsize="x-small")
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize="x-small")
    under = f" under ε = {format_epsilon(largest, norm)}" if largest else ""
    figure.suptitle(f"{title}: margin of the label's logit{under}", fontsize="small")
    path = pathlib.Path(path)
    figure.savefig(path, dpi=150)
    return path


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure that can be saved as PNG; sizes in inches."""
    # Not pyplot: it has a global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


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
