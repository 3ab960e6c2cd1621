"""Figures as PNG, SVG or PDF files. matplotlib is imported when one is drawn: it takes a second."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoe.attacks import ATTACKS
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE, Row, limits
from jaxmoe.threat import format_epsilon

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

# An attack has the colour of the part that it attacks; others of the same part have other marks.
_PARTS = {
    "model": ("C0", "on the whole"),
    "router": ("C3", "on the router"),
    "experts": ("C2", "on the experts"),
    "joint": ("C4", "on both at once"),
}
_MARKS = "os^Dv<>P*X"
_PANELS = 20  # of distributions in one figure
_LABELS_APART = 4.0  # points of percent, between the labels of two lines' ends


Band = Sequence[tuple[float, float, float]]
"""The intervals of a line: ε in pixel units, least and largest, 0–1."""


def plot_robust_accuracy(
    rows: Sequence[Row], path: str | os.PathLike, file_format: str = "png"
) -> pathlib.Path:
    """Draws robust accuracy against ε, a line for each attack that starts at clean accuracy.

    Args:
      rows: of a suite.
      path: of the file, or of a folder, where it is called `robust_accuracy.png`.
      file_format: of the file in a folder, one of `FORMATS`.

    Returns:
      The file's path.
    """
    path = _in_folder(path, "robust_accuracy", file_format)
    first = rows[0]
    dense = first.mean_iou is not None
    field, figure = ("mean_iou", "mIoU") if dense else ("robust_accuracy", "robust accuracy")
    clean = [getattr(row, field) for row in rows if row.attack == CLEAN]
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.attack != CLEAN:
            curves.setdefault(row.attack, []).append((row.epsilon, getattr(row, field)))
    title = f"n = {first.n}, norm {first.norm}, seed {first.seed}"
    least = [row for row in rows if row.attack in (CLEAN, WORST_CASE)]
    band = [(row.epsilon, *found) for row in least if (found := limits(row)) is not None]
    return plot_curves(curves, clean[0] if clean else None, path, title, first.norm, figure, band)


def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    clean: float | None,
    path: str | os.PathLike,
    title: str,
    norm: str,
    figure_of: str = "robust accuracy",
    band: Band = (),
) -> pathlib.Path:
    """Draws robust accuracy, or another figure, against ε, a line for each attack.

    Attacks on one part have one colour. The least that any of them leaves is bold, the worst case
    over all black, with its interval where `band` has one.

    Args:
      curves: of each attack, `(ε in pixel units, robust accuracy 0–1)` in any order.
      clean: accuracy at ε = 0, if known.
      path: of the file, whose suffix is its format.
      title: what the examples are.
      norm: decides the unit of the axis: grey levels for `"linf"`.
      figure_of: what is drawn, 0–1.
      band: 95 % intervals of the worst case, that at ε = 0 is of the clean examples.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = new_figure(7.2, 4.4)
    axes = figure.add_subplot()
    grey_levels = norm == "linf"
    scale = 255 if grey_levels else 1
    lines = {name: _points(curve, clean, scale) for name, curve in curves.items()}
    groups = _by_part(lines)
    for part, members in groups.items():
        colour = _PARTS[part][0] if part in _PARTS else "C7"
        for place, name in enumerate(members):
            mark = _MARKS[place % len(_MARKS)]
            thin = {"linewidth": 0.9, "alpha": 0.6, "markersize": 4}
            axes.plot(*lines[name], color=colour, marker=mark, label=name, **thin)
        if len(members) > 1 and part in _PARTS:
            axes.plot(*_least([lines[name] for name in members]), color=colour, linewidth=2.5)
    if WORST_CASE in lines:
        _draw_worst(axes, lines[WORST_CASE], band, scale)
    _label_ends(axes, lines, groups)
    _explain_colours(axes, groups)
    axes.set_xlabel("ε, grey levels of 255" if grey_levels else "ε, pixel units")
    axes.set_ylabel(f"{figure_of}, %")
    axes.set_ylim(-2, 102)
    if lines:
        axes.set_xlim(right=max(places[-1] for places, _ in lines.values()))  # labels stand outside
    axes.grid(alpha=0.3)
    axes.set_title(_title(title, groups), fontsize="small")
    figure.savefig(path, dpi=150)
    return path


def _in_folder(path: str | os.PathLike, name: str, file_format: str) -> pathlib.Path:
    path = pathlib.Path(path)
    return path if path.suffix[1:] in FORMATS else path / f"{name}.{file_format}"


def _points(curve: Sequence[tuple[float, float]], clean: float | None, scale: int):
    """The places and heights of a line, in the axis's units and in %."""
    points = sorted(curve)
    if clean is not None and points[0][0] > 0:
        points.insert(0, (0.0, clean))
    return [epsilon * scale for epsilon, _ in points], [100 * value for _, value in points]


def _by_part(lines: Mapping[str, Any]) -> dict[str, list[str]]:
    """The attacks by the part that they attack; those that are no single attack by themselves."""
    groups: dict[str, list[str]] = {}
    for name in lines:
        if name != WORST_CASE:
            part = ATTACKS[name].component if name in ATTACKS else "others"
            groups.setdefault(part, []).append(name)
    return {part: groups[part] for part in (*_PARTS, "others") if part in groups}


def _least(lines: Sequence[tuple[list[float], list[float]]]):
    """The lowest of several lines, where all of them are."""
    places = sorted(set.intersection(*(set(places) for places, _ in lines)))
    heights = [dict(zip(places_, values, strict=True)) for places_, values in lines]
    return places, [min(line[place] for line in heights) for place in places]


def _draw_worst(
    axes: "Axes", line: tuple[list[float], list[float]], band: Band, scale: int
) -> None:
    places, heights = line
    axes.plot(places, heights, color="black", linewidth=2.5, marker="o", label=WORST_CASE)
    if len(band) > 1:
        places, low, high = np.array(sorted(band)).T
        axes.fill_between(
            scale * places, 100 * low, 100 * high, color="black", alpha=0.12, linewidth=0
        )


def _label_ends(axes: "Axes", lines: Mapping[str, Any], groups: Mapping[str, list[str]]) -> None:
    """Names each line at its right end; names that would overlap move up."""
    colours = {WORST_CASE: "black"}
    for part, members in groups.items():
        colours |= dict.fromkeys(members, _PARTS[part][0] if part in _PARTS else "C7")
    lowest = -np.inf
    for name in sorted(lines, key=lambda name: lines[name][1][-1]):
        places, heights = lines[name]
        lowest = max(heights[-1], lowest + _LABELS_APART)
        axes.annotate(
            name,
            (places[-1], heights[-1]),
            (8, (lowest - heights[-1]) * 2.4),
            textcoords="offset points",
            color=colours[name],
            fontsize="x-small",
            va="center",
            weight="bold" if name == WORST_CASE else "normal",
            annotation_clip=False,
        )


def _explain_colours(axes: "Axes", groups: Mapping[str, list[str]]) -> None:
    """A legend of the parts, where there are several."""
    parts = [part for part in groups if part in _PARTS]
    if len(parts) > 1:
        for part in parts:
            axes.plot([], [], color=_PARTS[part][0], linewidth=2.5, label=_PARTS[part][1])
        handles = axes.lines[-len(parts) :]
        axes.legend(handles=handles, loc="lower left", fontsize="x-small")


def _title(title: str, groups: Mapping[str, list[str]]) -> str:
    """The title, with what the lines are where they are of several parts."""
    if not any(len(members) > 1 for members in groups.values()):
        return title
    return f"{title}; bold: worst case of the attacks on one part"


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
    """Draws how far the label's logit is above the next, clean and in the worst case, by class.

    Each line is an empirical distribution function: at 0 its height is the share of wrong examples.
    A model whose margins are small when clean has little to lose.

    Args:
      margins: [N] of each `(attack, ε)`, with `("clean", 0.0)`; the worst case is each example's
        least at the largest ε.
      labels: class of each example, [N]; one panel for all where they have none, [N, …].
      classes: their names; of more than twenty those with the smallest mean under attack.
      path: of the file, whose suffix is its format.
      title: what the examples are.
      norm: the unit of ε.
    """
    largest = max(epsilon for _, epsilon in margins)
    shown = {CLEAN: margins[CLEAN, 0.0]}
    attacked = [m for (_, epsilon), m in margins.items() if epsilon == largest > 0]
    if attacked:
        shown[WORST_CASE] = np.min(attacked, axis=0)
    groups = {"all": np.ones(len(shown[CLEAN]), bool)}
    if labels.ndim == 1:
        groups = {name: labels == number for number, name in enumerate(classes)}
        groups = {name: members for name, members in groups.items() if members.any()}
        worst = np.min(list(shown.values()), axis=0)
        groups = dict(sorted(groups.items(), key=lambda group: worst[group[1]].mean())[:_PANELS])
    everything = np.concatenate(list(shown.values()))
    low, high = np.quantile(everything, [0.01, 0.99])  # a few huge ones would flatten all others
    low, high = min(low, 0.0), max(high, 0.0) or 1.0
    across = min(len(groups), 4)
    down = -(-len(groups) // across)
    figure = new_figure(max(2.4 * across + 0.4, 6.0), 1.5 * down + 1.2)  # wide enough for the title
    panels = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    for axes, (name, members) in zip(panels, groups.items(), strict=False):
        for what, values in shown.items():
            own = np.sort(np.clip(values[members], low, high))
            style = {"color": "black", "linewidth": 2.0} if what == WORST_CASE else {"color": "C0"}
            axes.ecdf(own, label=what, **style)
        axes.axvline(0.0, color="black", linewidth=0.6)
        axes.set_title(f"{name}, n = {members.sum()}", fontsize="x-small")
        axes.tick_params(labelsize="x-small")
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize="x-small")
    under = f" and under ε = {format_epsilon(largest, norm)}" if largest else ""
    figure.suptitle(f"{title}: margin of the label's logit, clean{under}", fontsize="small")
    figure.supylabel("share of examples below", fontsize="x-small")
    path = pathlib.Path(path)
    figure.savefig(path, dpi=150)
    return path


def plot_training(
    metrics: Sequence[Mapping[str, Any]], path: str | os.PathLike
) -> pathlib.Path | None:
    """Draws a run's losses, and its accuracies on the validation split, against steps.

    Args:
      metrics: of `training.read_metrics`.
      path: of the file, or of a folder, where it is called `training.png`.

    Returns:
      The file's path; None where there is nothing to draw.
    """
    path = _in_folder(path, "training", "png")
    losses, judged = _series(metrics, "/loss"), _series(metrics, "accuracy", "validation/")
    losses = {n: line for n, line in losses.items() if not n.startswith("validation/")}
    if not losses and not judged:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = new_figure(7.2, 3.2)
    panels = figure.subplots(1, 2)
    for axes, lines, scale, label in (
        (panels[0], losses, 1, "loss of each phase"),
        (panels[1], judged, 100, "validation, %"),
    ):
        for name, (steps, values) in lines.items():
            label_of = name.removesuffix("/loss").removeprefix("validation/").replace("_", " ")
            axes.plot(steps, [scale * v for v in values], marker=".", linewidth=1, label=label_of)
        axes.set_xlabel("steps of all stages")
        if scale == 100:
            axes.set_ylim(-2, 102)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=150)
    return path


def _series(
    metrics: Sequence[Mapping[str, Any]], ending: str, beginning: str = ""
) -> dict[str, tuple[list[int], list[float]]]:
    """The metrics whose names end and begin so, against steps."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for entry in metrics:
        for name, value in entry.items():
            if name.endswith(ending) and name.startswith(beginning) and value is not None:
                steps, values = found.setdefault(name, ([], []))
                steps.append(entry["step"])
                values.append(value)
    return found


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure that can be saved; sizes in inches."""
    # Not pyplot: it has a global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
