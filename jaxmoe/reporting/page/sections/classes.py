"""Classes: which are confused with which, and how robust each is.

Axes: N = test examples, K = classes.
"""

import math
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from jaxmoe.evaluation.engine.rows import CLEAN, Row
from jaxmoe.evaluation.measures.metrics import iou, mean_iou
from jaxmoe.reporting.page.arrays import Examples
from jaxmoe.reporting.page.figures import heat
from jaxmoe.reporting.page.gather import RunFiles
from jaxmoe.reporting.page.wording import (
    Share,
    epsilon,
    percent,
    several,
    share,
    strongest,
    title_of,
)

_MOST_IN_TABLE = 12  # classes of a confusion that is written as numbers
_MOST_CLASSES = 120  # in the list
_MOST_CONFUSED = 8


class Confusion(NamedTuple):
    """Counts of label and prediction: a table where classes are few, else a picture and a list."""

    title: str
    names: list[str]
    cells: list[list[tuple[int, float]]]  # count, and its share of the row
    picture: Markup | None
    pairs: list[str]


class ClassRow(NamedTuple):
    """A class under one attack."""

    name: str
    n: int
    clean: Share
    robust: Share


class ClassPanel(NamedTuple):
    """The classes under one attack, or in the worst case."""

    label: str
    sentence: str
    rows: list[ClassRow]
    left_out: int
    confusion: Confusion | None


class IouRow(NamedTuple):
    """A class of pixels under one attack; 0–1, NaN where it is neither labelled nor predicted."""

    name: str
    share: float  # of the labelled pixels
    clean: float
    attacked: float


class IouPanel(NamedTuple):
    """The classes of pixels under one attack, over all examples that were judged."""

    label: str
    sentence: str
    rows: list[IouRow]


class Classes(NamedTuple):
    """The panels and the clean confusion, or, where pixels have labels, the panels of IoU."""

    panels: list[ClassPanel]
    clean: Confusion | None
    iou: list[IouPanel]
    first: int  # of these panels, which is shown first
    why_none: str


def classes(run: RunFiles) -> Classes:
    """Returns what is known of the classes of a run."""
    examples = run.examples
    if examples is None:
        why = "This evaluation kept no single examples, so nothing is known of classes."
        return Classes([], None, [], 0, why)
    if examples.dense:
        return _of_pixels(run, examples)
    panels = [
        _panel(
            run,
            f"worst case, ε = {epsilon(row)}",
            examples.worst(row.epsilon),
            _worst_confusion(run, examples, row.epsilon),
        )
        for row in run.worst
    ]
    for row in run.attacks:
        line = examples.line(row.attack, row.epsilon)
        if line is not None:
            confusion = _of_line(run, examples, line, f"under {title_of(row)}")
            panels.append(_panel(run, title_of(row), examples.robust(line), confusion))
    clean = _of_line(run, examples, examples.clean, "clean")
    if not panels:
        panels = [_panel(run, "clean", examples.correct[examples.clean], None)]
    return Classes(panels, clean, [], 0, "")


def _panel(run: RunFiles, label: str, right: np.ndarray, confusion: Confusion | None) -> ClassPanel:
    examples = run.examples
    rows = []
    for number in np.unique(examples.label).tolist():
        own = examples.label == number
        n = int(own.sum())
        clean = share(float(examples.correct[examples.clean][own].sum()), n)
        rows.append(ClassRow(run.class_name(number), n, clean, share(float(right[own].sum()), n)))
    rows.sort(key=lambda row: row.robust.value)
    least = [row for row in rows if row.robust.value == rows[0].robust.value]
    names = several([row.name for row in least], 4)
    worst = least[0].robust
    verb = "is the worst class" if len(least) == 1 else "are the worst classes"
    each = "" if len(least) == 1 else " each"
    sentence = f"{names} {verb}: {worst.text} right{each}"
    if len(least) == 1:
        sentence += f" ({worst.of}; 95 % interval {worst.range})"
    best = rows[-1]
    if best.robust.value > worst.value:
        sentence += f". The best is {best.name}: {best.robust.text}"
    shown = rows[:_MOST_CLASSES]
    return ClassPanel(label, f"{sentence}.", shown, len(rows) - len(shown), confusion)


def _of_line(run: RunFiles, examples: Examples, line: int, title: str) -> Confusion | None:
    if examples.prediction is None:
        return None
    return _confusion(run, examples.prediction[line].astype(int), title)


def _worst_confusion(run: RunFiles, examples: Examples, radius: float) -> Confusion | None:
    """Each example as the first attack up to ε has it that breaks it."""
    if examples.prediction is None:
        return None
    within = [place for place, (_, at) in enumerate(examples.lines) if at <= radius + 1e-9]
    broken = examples.correct[within] < 0.5
    first = np.array(within)[broken.argmax(axis=0)]  # the clean line where nothing breaks it
    predicted = examples.prediction[first, np.arange(len(examples.index))].astype(int)
    title = "in the worst case, each example under the first attack that breaks it"
    return _confusion(run, predicted, title)


def _confusion(run: RunFiles, predicted: np.ndarray, title: str) -> Confusion | None:
    label = run.examples.label.astype(int)
    known = (predicted >= 0) & (label >= 0)
    if not known.any():
        return None
    predicted, label = predicted[known], label[known]
    named = len(run.description.get("classes") or ())
    count = max(named, int(predicted.max()) + 1, int(label.max()) + 1)
    counts = np.zeros((count, count), int)
    np.add.at(counts, (label, predicted), 1)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = [
        f"{run.class_name(int(a))} → {run.class_name(int(b))}: {wrong[a, b]}"
        for a, b in (np.unravel_index(place, wrong.shape) for place in order)
        if wrong[a, b]
    ]
    names = [run.class_name(number) for number in range(count)]
    if count <= _MOST_IN_TABLE:
        sums = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        cells = [
            list(zip(row.tolist(), part.tolist(), strict=True))
            for row, part in zip(counts, counts / sums, strict=True)
        ]
        return Confusion(title, names, cells, None, pairs)
    said = f"Confusion of {count} classes, {title}"
    picture = heat.heat_map(counts, said, "label", "prediction")
    return Confusion(title, names, [], picture, pairs)


def _of_pixels(run: RunFiles, examples: Examples) -> Classes:
    if examples.confusion is None:
        why = (
            "This evaluation is of before pixels were counted by class, so nothing is known of "
            "classes. Evaluate again to have their IoU."
        )
        return Classes([], None, [], 0, why)
    rows = [row for row in run.attacks if examples.line(row.attack, row.epsilon) is not None]
    panels = [_iou_panel(run, examples, row) for row in rows or [run.clean]]
    most = strongest(rows, max((row.epsilon for row in rows), default=0.0))
    return Classes([], None, panels, 0 if most is None else rows.index(most), "")


def _iou_panel(run: RunFiles, examples: Examples, row: Row) -> IouPanel:
    line = examples.line(row.attack, row.epsilon)
    label = CLEAN if line == examples.clean else title_of(row)
    before, after = examples.confusion[examples.clean], examples.confusion[line]
    shares = before.sum(axis=1) / max(before.sum(), 1)
    figures = zip(shares.tolist(), iou(before).tolist(), iou(after).tolist(), strict=True)
    rows = [IouRow(run.class_name(number), *own) for number, own in enumerate(figures)]
    rows = [own for own in rows if not (math.isnan(own.clean) and math.isnan(own.attacked))]
    rows.sort(key=lambda own: (math.isnan(own.attacked), own.attacked))
    mean = f"Mean IoU {percent(mean_iou(before))} %"
    if line != examples.clean:
        mean = f"Mean IoU {percent(mean_iou(before))} → {percent(mean_iou(after))} %"
    known = [own for own in rows if own.share > 0]
    said = [mean]
    if known:
        worst = known[0].attacked
        least = [own.name for own in known if own.attacked == worst]
        single = len(least) == 1
        verb, each = ("is the worst class", "") if single else ("are the worst classes", " each")
        said.append(f"{several(least, 4)} {verb}: {percent(worst)} % IoU{each}")
    if strange := [own.name for own in rows if not own.share]:
        verb = "is" if len(strange) == 1 else "are"
        said.append(f"{several(strange, 4)} {verb} predicted, though nowhere labelled: IoU is 0")
    return IouPanel(label, f"{'. '.join(said)}.", rows)
