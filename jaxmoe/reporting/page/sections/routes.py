"""Routes: where the router sends examples when clean and under an attack, and what that costs.

Axes: N = test examples, M = experts.
"""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from jaxmoe.evaluation.engine.rows import Row
from jaxmoe.reporting.page.arrays import Examples
from jaxmoe.reporting.page.figures import bars, flow, heat
from jaxmoe.reporting.page.gather import RunFiles
from jaxmoe.reporting.page.wording import percent, share, strongest, title_of

_MOST_FLOWS = 10  # in the list beside a heat map


class Table(NamedTuple):
    """A small table: a caption, titles, and rows whose first cell is their head."""

    caption: str
    titles: list[str]
    rows: list[list[str]]


class RoutePanel(NamedTuple):
    """The routes under one attack at one ε."""

    label: str
    sentence: str
    flow: Markup | None
    ribbons: bool  # rather than a heat map
    table: Table | None
    facts: list[tuple[str, str]]
    load: Markup | None
    classes: Table | None


class Routes(NamedTuple):
    """The panels, and which one is shown first; without any a sentence says why."""

    panels: list[RoutePanel]
    first: int
    why_none: str


def routes(run: RunFiles) -> Routes:
    """Returns what is known of the routes of a run."""
    if run.experts == 1:
        return Routes([], 0, "The model has one expert: there is no route to turn.")
    rows = [row for row in run.attacks if row.flip_rate is not None or _moved(run, row)]
    if not rows:
        return Routes([], 0, "This evaluation says nothing of routes.")
    most = strongest(rows, max(row.epsilon for row in rows))
    return Routes([_panel(run, row) for row in rows], rows.index(most), "")


def _moved(run: RunFiles, row: Row) -> tuple[np.ndarray, np.ndarray] | None:
    """As `Examples.moved`, of a row's line."""
    if run.examples is None:
        return None
    line = run.examples.line(row.attack, row.epsilon)
    return None if line is None else run.examples.moved(line)


def _panel(run: RunFiles, row: Row) -> RoutePanel:
    facts, sentence, picture, table, classes = _of_row(row), "", None, None, None
    if row.flip_rate is not None:
        sentence = f"{percent(row.flip_rate)} % of the examples have another first expert."
    found = _moved(run, row)
    if found is not None:
        pair, known = found
        counts = np.zeros((run.experts, run.experts), int)
        np.add.at(counts, (pair[:, 0], pair[:, 1]), 1)
        right = run.examples.robust(run.examples.line(row.attack, row.epsilon))[known]
        sentence = _sentence(counts)
        said = f"Flow of {len(known)} examples from clean to attacked expert, {title_of(row)}"
        small = run.experts <= flow.MOST_RIBBONS
        picture = (
            flow.ribbons(counts, said)
            if small
            else heat.heat_map(counts, said, "clean expert", "expert under attack")
        )
        table = _all_flows(counts) if small else _largest_flows(counts)
        facts = [*_costs(pair, right, run.dense), *facts]
        classes = _by_class(run, run.examples, pair, known, right)
    load = None
    if row.load_clean is not None and row.load_adversarial is not None:
        said = f"Load of each expert, clean and under {title_of(row)}"
        load = bars.pairs(row.load_clean, row.load_adversarial, said)
    small = run.experts <= flow.MOST_RIBBONS
    return RoutePanel(title_of(row), sentence, picture, small, table, facts, load, classes)


def _sentence(counts: np.ndarray) -> str:
    """How many turned, and which expert takes them."""
    turned = counts - np.diag(np.diag(counts))
    flipped = share(int(turned.sum()), int(counts.sum()))
    said = f"{flipped.of} examples ({flipped.text}; {flipped.range}) turn to another expert."
    if not turned.sum():
        return f"No example turns to another expert ({flipped.of}; up to {flipped.range[7:]})."
    into = turned.sum(axis=0)
    most = np.flatnonzero(into == into.max()).tolist()
    who = " and ".join(f"expert {expert}" for expert in most[:4])
    verb = "takes" if len(most) == 1 else "take"
    each = f"{into.max()} of {turned.sum()}" + (" each" if len(most) > 1 else "")
    return f"{said} {who[:1].upper()}{who[1:]} {verb} most of the turned ones: {each}."


def _costs(pair: np.ndarray, right: np.ndarray, dense: bool) -> list[tuple[str, str]]:
    """Accuracy of flipped examples and of those that stayed."""
    flipped = pair[:, 0] != pair[:, 1]
    said = []
    for name, which in (("right where flipped", flipped), ("right where it stayed", ~flipped)):
        count, n = float(right[which].sum()), int(which.sum())
        if dense or not n:
            text = f"{percent(count / n)} % of pixels" if n else "no such example"
        else:
            found = share(count, n)
            text = f"{found.text} ({found.of}; {found.range})"
        said.append((name, text))
    return said


def _of_row(row: Row) -> list[tuple[str, str]]:
    """Entropy before and after, and overlap of chosen sets."""
    facts = []
    if row.routing_entropy_clean is not None and row.routing_entropy_adversarial is not None:
        normal = row.routing_entropy_clean_normalized, row.routing_entropy_adversarial_normalized
        of_most = ""
        if None not in normal:
            of_most = f"; {percent(normal[0], 0)} → {percent(normal[1], 0)} % of log M"
        before, after = row.routing_entropy_clean, row.routing_entropy_adversarial
        facts.append(("routing entropy", f"{before:.3f} → {after:.3f} nats{of_most}"))
    if row.routing_iou is not None:
        facts.append(("overlap of chosen experts", f"{percent(row.routing_iou)} %"))
    return facts


def _all_flows(counts: np.ndarray) -> Table:
    titles = ["clean ↓ attacked →", *(f"E{expert}" for expert in range(len(counts)))]
    rows = [[f"E{expert}", *map(str, row)] for expert, row in enumerate(counts.tolist())]
    return Table("examples by clean expert (rows) and expert under attack (columns)", titles, rows)


def _largest_flows(counts: np.ndarray) -> Table:
    turned = counts - np.diag(np.diag(counts))
    order = np.argsort(-turned, axis=None, kind="stable")[:_MOST_FLOWS]
    pairs = [tuple(map(int, np.unravel_index(place, turned.shape))) for place in order]
    rows = [[f"E{a} → E{b}", str(turned[a, b])] for a, b in pairs if turned[a, b]]
    return Table("the largest flows to another expert", ["from → to", "examples"], rows)


def _by_class(
    run: RunFiles, examples: Examples, pair: np.ndarray, known: np.ndarray, right: np.ndarray
) -> Table | None:
    if examples.dense:
        return None
    label, flipped = examples.label[known], pair[:, 0] != pair[:, 1]
    rows = []
    for number in np.unique(label).tolist():
        own = label == number
        turned = own & flipped
        to = np.bincount(pair[turned, 1], minlength=run.experts)
        most = f"E{to.argmax()} ({to.max()})" if turned.any() else "–"
        found = share(int(turned.sum()), int(own.sum()))
        lost = percent(1 - float(right[turned].mean())) if turned.any() else "–"
        rows.append([run.class_name(number), str(own.sum()), percent(found.value), most, lost])
    titles = ["class", "n", "flipped %", "most go to", "of these wrong %"]
    return Table("routes by class", titles, rows)
