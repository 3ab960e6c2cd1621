"""Routes: where the router sends examples when clean and under an attack, and what that costs.

Axes: N = test examples, M = experts.
"""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from jaxmoe.attacks.cascade import CASCADES, CUSTOM
from jaxmoe.evaluation.engine.rows import Row
from jaxmoe.reporting.page.figures import bars, flow, heat
from jaxmoe.reporting.page.gather import RunFiles
from jaxmoe.reporting.page.wording import UNKNOWN, percent, several, share, strongest, title_of

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
    classes: list[Table]


class Routes(NamedTuple):
    """The panels, and which one is shown first; without any a sentence says why."""

    panels: list[RoutePanel]
    first: int
    why_none: str


class _Moved(NamedTuple):
    """The examples whose routes under an attack are known; n of them."""

    places: np.ndarray  # [n], in 0..N−1
    pair: np.ndarray | None  # [n, 2], clean expert and that under the attack
    entropy: np.ndarray | None  # [n, 2] of the router's weights, nats; NaN where not known
    clean: np.ndarray  # [n], right when clean
    right: np.ndarray  # [n], when clean and under the attack
    left_out: int  # examples that were never attacked


def routes(run: RunFiles) -> Routes:
    """Returns what is known of the routes of a run."""
    if run.experts == 1:
        return Routes([], 0, "The model has one expert: there is no route to turn.")
    rows = [row for row in run.attacks if row.flip_rate is not None or _moved(run, row)]
    if not rows:
        return Routes([], 0, "This evaluation says nothing of routes.")
    most = strongest(rows, max(row.epsilon for row in rows))
    return Routes([_panel(run, row) for row in rows], rows.index(most), "")


def _moved(run: RunFiles, row: Row) -> _Moved | None:
    """Facts of single examples; None where there are none, or no router chose for them."""
    examples = run.examples
    line = None if examples is None else examples.line(row.attack, row.epsilon)
    if line is None:
        return None
    # A cascade attacks what is right when clean; of all else it has but the clean facts.
    attacked = np.ones(len(examples.index), bool)
    if _is_cascade(row):
        attacked = examples.correct[examples.clean] > 0
    entropy, pair = None, None
    known = attacked
    if examples.weights is not None:
        both = examples.weights[[examples.clean, line]].astype(np.float64)
        entropy = np.moveaxis(-np.sum(both * np.log(np.maximum(both, 1e-12)), axis=-1), 0, -1)
        known = attacked & ~np.isnan(entropy).any(axis=-1)
    if (found := examples.moved(line)) is not None:
        has_pair = np.zeros(len(attacked), bool)
        has_pair[found[1]] = True
        known, pair = attacked & has_pair, found[0][attacked[found[1]]]
    elif entropy is None:
        return None
    places = np.flatnonzero(known)
    if not places.size:
        return None
    entropy = None if entropy is None else entropy[places]
    clean, right = examples.correct[examples.clean][places], examples.robust(line)[places]
    return _Moved(places, pair, entropy, clean, right, int((~attacked).sum()))


def _is_cascade(row: Row) -> bool:
    return row.attack in CASCADES or row.attack == CUSTOM


def _panel(run: RunFiles, row: Row) -> RoutePanel:
    facts, sentence, picture, table = _of_row(row), "", None, None
    if row.flip_rate is not None:
        sentence = f"{percent(row.flip_rate)} % of the first choices turn to another expert."
    small = run.experts <= flow.MOST_RIBBONS
    found = _moved(run, row)
    if found is not None and found.pair is not None:
        counts = np.zeros((run.experts, run.experts), int)
        np.add.at(counts, (found.pair[:, 0], found.pair[:, 1]), 1)
        sentence = _sentence(counts)
        said = f"Flow of {counts.sum()} examples from clean to attacked expert, {title_of(row)}"
        picture = (
            flow.ribbons(counts, said)
            if small
            else heat.heat_map(counts, said, "clean expert", "expert under attack")
        )
        table = _all_flows(counts) if small else _largest_flows(counts)
        facts = [*_costs(found, run.dense), *facts]
    if found is not None:
        unsaid = row.routing_entropy_adversarial is None and found.entropy is not None
        if unsaid and not np.isnan(found.entropy).all():
            facts.append(("routing entropy", f"{_entropies(found.entropy)} nats"))
        if found.left_out:
            sentence += f" {_left_out(found.left_out)}"
    loads, load = (row.load_clean, row.load_adversarial), None
    if None in loads and found is not None and found.pair is not None:
        loads = tuple((counts.sum(axis) / counts.sum()).tolist() for axis in (1, 0))
    if None not in loads:
        load = bars.pairs(*loads, f"Load of each expert, clean and under {title_of(row)}")
    classes = [] if found is None or run.examples.dense else _by_class(run, found)
    title = title_of(row)
    return RoutePanel(title, sentence.strip(), picture, small, table, facts, load, classes)


def _left_out(count: int) -> str:
    examples = "1 example that is" if count == 1 else f"{count} examples that are"
    verb = "is" if count == 1 else "are"
    return (
        f"A cascade attacks only what is right when clean: {examples} wrong when clean {verb} "
        "left out here."
    )


def _sentence(counts: np.ndarray) -> str:
    """How many turned, and which expert takes them."""
    turned = counts - np.diag(np.diag(counts))
    flipped = share(int(turned.sum()), int(counts.sum()))
    said = f"{flipped.of} examples ({flipped.text}; {flipped.range}) turn to another expert."
    if not turned.sum():
        return f"No example turns to another expert ({flipped.of}; up to {flipped.range[7:]})."
    into = turned.sum(axis=0)
    most = np.flatnonzero(into == into.max()).tolist()
    each = f"{into.max()} of {turned.sum()}"
    if len(most) == 1:
        part = "most" if 2 * into.max() > turned.sum() else "the largest part"
        return f"{said} Expert {most[0]} takes {part} of the turned ones: {each}."
    who = several(list(map(str, most)), 4)
    return f"{said} Experts {who} take the largest parts of the turned ones: {each} each."


def _costs(found: _Moved, dense: bool) -> list[tuple[str, str]]:
    """The share of what was right when clean that is still right, flipped and stayed."""
    flipped = found.pair[:, 0] != found.pair[:, 1]
    said = []
    for name, which in (
        ("flipped: still right under attack, of those right when clean", flipped),
        ("stayed: still right under attack, of those right when clean", ~flipped),
    ):
        count, n = float(found.right[which].sum()), float(found.clean[which].sum())
        if dense or not n:
            text = f"{percent(count / n)} % of pixels" if n else "no such example"
        else:
            kept = share(count, int(n))
            text = f"{kept.text} ({kept.of}; {kept.range})"
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


def _by_class(run: RunFiles, found: _Moved) -> list[Table]:
    label = run.examples.label[found.places]
    numbers = [number for number in np.unique(label).tolist() if number >= 0]
    titles, rows, loads = ["class", "n"], [], []
    if found.pair is not None:
        titles += ["flipped %", "most go to", "of these not robust %"]
    if found.entropy is not None:
        titles.append("entropy, nats")
    for number in numbers:
        own, head = label == number, run.class_name(number)
        rows.append([head, str(own.sum())])
        if found.pair is not None:
            rows[-1] += _turned(found.pair[own], found.right[own], run.experts)
            loads.append([head, *_loads(found.pair[own], run.experts)])
        if found.entropy is not None:
            rows[-1].append(_entropies(found.entropy[own]))
    said = "entropy: of the router's weights, mean, clean → under attack"
    if found.pair is None:
        said = "entropy: of an example's weights, the mean over its routes, clean → under attack"
    elif found.entropy is None:
        said = ""
    parts = ["robust: right when clean and under the attack"] if found.pair is not None else []
    parts += [said] if said else []
    tables = [Table(f"routes by class ({'; '.join(parts)})", titles, rows)]
    if loads and run.experts <= flow.MOST_RIBBONS:
        caption = "load by class: % of its examples at each expert, clean → under attack"
        experts = [f"E{expert}" for expert in range(run.experts)]
        tables.append(Table(caption, ["class", *experts], loads))
    return tables


def _turned(pair: np.ndarray, right: np.ndarray, experts: int) -> list[str]:
    """The share that turned, where most of it went, and what of it is not robust."""
    flipped = pair[:, 0] != pair[:, 1]
    to = np.bincount(pair[flipped, 1], minlength=experts)
    most = f"E{to.argmax()} ({to.max()})" if flipped.any() else UNKNOWN
    lost = percent(1 - float(right[flipped].mean())) if flipped.any() else UNKNOWN
    return [percent(float(flipped.mean())), most, lost]


def _loads(pair: np.ndarray, experts: int) -> list[str]:
    before, after = (np.bincount(pair[:, side], minlength=experts) / len(pair) for side in range(2))
    return [
        f"{percent(a, 0)} → {percent(b, 0)}"
        for a, b in zip(before.tolist(), after.tolist(), strict=True)
    ]


def _entropies(entropy: np.ndarray) -> str:
    """The mean over the examples where both are known."""
    known = entropy[~np.isnan(entropy).any(axis=-1)]
    return f"{known[:, 0].mean():.2f} → {known[:, 1].mean():.2f}" if len(known) else UNKNOWN
