"""Examples: whole ones that play, and all of them as a table that can be filtered.

Axes: E = whole examples, T = frames, M = experts.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from jaxmoe.evaluation.engine.rows import CLEAN
from jaxmoe.reporting.page.arrays import (
    WRONG_WHEN_CLEAN,
    Examples,
    Shown,
    smallest_breaking,
)
from jaxmoe.reporting.page.figures import bars, heat, sprites
from jaxmoe.reporting.page.gather import RunFiles
from jaxmoe.reporting.page.wording import NORMS, UNKNOWN, percent, several
from jaxmoe.threat import format_epsilon

BYTES = 2_300_000  # of all PNG files of a page; as text in it they take a third more
_MOST_ROWS = 400
_WHY = {
    "smallest epsilon": "broken at the smallest ε",
    "confident failure": "one of the most confident failures",
    "survivor": "survives every attack",
    "random": "drawn at random",
}
_UNKNOWN_ROUTE = "unknown"
_WRONG = "wrong when clean"


class Track(NamedTuple):
    """One strip of a card: clean, adversarial, difference, or label maps."""

    name: str
    strip: sprites.Strip
    alt: str


class Filter(NamedTuple):
    """The values that an example is found by; `labels` and `broken_by` are between bars."""

    labels: str  # numbers of the classes that it has
    attack: str
    flipped: str
    broken_by: str


class Card(NamedTuple):
    """One whole example."""

    title: str
    why: str
    attack: str
    filter: Filter
    tracks: list[Track]
    maps: list[Track]
    note: str
    says: tuple[str, str, str]  # label, prediction when clean, under attack
    outcome: str  # "broken", "held", or "before": wrong before the attack
    facts: list[tuple[str, str]]
    size: Markup | None
    steps: Markup | None
    weights: Markup | None


class ExampleRow(NamedTuple):
    """One test example in the table."""

    number: int
    label: str
    clean: str
    least: str
    least_value: float
    broken_by: str
    filter: Filter


class Gallery(NamedTuple):
    """Cards, rows, and what there is to filter by."""

    cards: list[Card]
    rows: list[ExampleRow]
    drawn_of: int
    labels: list[tuple[int, str]]  # number and name of each class that there is
    has_label: bool  # whether an example has one class
    attacks: list[str]
    has_routes: bool
    scale_note: str
    why_none: str


def gallery(run: RunFiles, seed: int = 0, budget: int = BYTES) -> Gallery:
    """Returns the examples of a run.

    Args:
      run: a run's files.
      seed: of the draw of rows, where there are more examples than the table has.
      budget: bytes of all pictures.
    """
    examples = run.examples
    if examples is None:
        why = next((s for s in run.lacks if "examples" in s), "No single example was kept.")
        return Gallery([], [], 0, [], False, [], False, "", why)
    least, by = smallest_breaking(examples)
    cards = []
    if run.shown is not None and len(run.shown.position):
        maps = 0 if run.shown.label_map is None else 1
        each = budget // (len(run.shown.position) * (3 + maps))
        cards = [
            _card(run, examples, run.shown, place, each, least, by)
            for place in range(len(run.shown.position))
        ]
    rows = _rows(run, examples, least, by, _drawn(len(examples.index), seed))
    held = "".join(dict.fromkeys(item.filter.labels for item in (*cards, *rows)))
    numbers = {int(number) for number in held.split("|") if number}
    labels = sorted(((k, run.class_name(k)) for k in numbers), key=lambda pair: pair[1])
    attacks = list(dict.fromkeys(name for name, _ in examples.lines if name != CLEAN))
    routed = any(item.filter.flipped != _UNKNOWN_ROUTE for item in (*cards, *rows))
    why = "" if cards else next((s for s in run.lacks if "played" in s), "")
    exact = all(track.strip.exact for card in cards for track in card.tracks)
    note = "" if exact else "Some clips are shown smaller, or with fewer colours, than they are."
    known = not examples.dense
    return Gallery(cards, rows, len(examples.index), labels, known, attacks, routed, note, why)


def _card(
    run: RunFiles,
    examples: Examples,
    shown: Shown,
    place: int,
    budget: int,
    least: np.ndarray,
    by: list[list[str]],
) -> Card:
    position, line = int(shown.position[place]), int(shown.line[place])
    attack, radius = examples.lines[line]
    clean, adversarial = shown.clean[place], shown.adversarial[place]
    difference, scale = sprites.amplified(adversarial, clean)
    number, label = int(examples.index[position]), _label(run, examples, position)
    name = f"example {number}" + (f", {label}" if label else "")
    clips = {
        "clean": clean,
        "adversarial": sprites.as_pixels(adversarial),
        f"difference × {scale}": difference,
    }
    strips = sprites.strips_of(list(clips.values()), len(clips) * budget)
    tracks = [
        Track(kind, strip, f"{kind}: {name}") for kind, strip in zip(clips, strips, strict=True)
    ]
    first, then = (_prediction(run, examples, at, position) for at in (examples.clean, line))
    norm = run.clean.norm
    name_of_break = "loses half of what was right" if examples.dense else "broken"
    facts = [(name_of_break, _broken(least[position], by[position], norm))]
    moved = _route(examples, line, position)
    if moved is not None:
        same = moved[0] == moved[1]
        text = f"E{moved[0]}, as when clean" if same else f"E{moved[0]} → E{moved[1]}"
        facts.append(("expert", text))
    return Card(
        title=f"Example {number}",
        why=_WHY.get(shown.why[place], shown.why[place]),
        attack=f"{attack}, ε = {format_epsilon(radius, norm)}",
        filter=Filter(
            _bars(_classes(examples, position)),
            attack,
            _flipped(moved),
            _broken_by(least[position], by[position]),
        ),
        tracks=tracks,
        maps=_maps(run, shown, place, budget),
        note=_note(clean, strips[0]),
        says=(label, first, then),
        outcome=_outcome(examples, line, position, least[position]),
        facts=facts,
        size=_size(examples, line, position, norm),
        steps=_steps(shown, place, norm),
        weights=_weights(examples, line, position, name),
    )


def _note(clip: np.ndarray, strip: sprites.Strip) -> str:
    """The size of a clip, and what of it is shown."""
    frames, height, width = clip.shape[:3]
    said = f"{height} × {width}" if frames == 1 else f"{frames} × {height} × {width}"
    shown = []
    if strip.frames < frames:
        shown.append(f"{strip.frames} of {frames} frames")
    if (strip.height, strip.width) != (height, width):
        shown.append(f"at {strip.height} × {strip.width}")
    return f"{said}, shown {' '.join(shown)}" if shown else said


def _outcome(examples: Examples, line: int, position: int, least: float) -> str:
    """Returns what became of an example; an attack did nothing to one that was wrong before."""
    if least == WRONG_WHEN_CLEAN:
        return "before"
    return "broken" if _is_wrong(examples, line, position) else "held"


def _is_wrong(examples: Examples, line: int, position: int) -> bool:
    """Wrong; of pixels, right in less than half of those that were right when clean."""
    most = examples.correct[examples.clean, position] if examples.dense else 1.0
    return bool(examples.correct[line, position] < 0.5 * most)


def _drawn(count: int, seed: int) -> list[int]:
    """The places of the examples that the table has: all, or as many as it takes."""
    if count <= _MOST_ROWS:
        return list(range(count))
    return sorted(np.random.default_rng(seed).choice(count, _MOST_ROWS, replace=False).tolist())


def _rows(
    run: RunFiles, examples: Examples, least: np.ndarray, by: list[list[str]], chosen: list[int]
) -> list[ExampleRow]:
    norm, rows = run.clean.norm, []
    for place in chosen:
        label = _label(run, examples, place)
        right = examples.correct[examples.clean, place]
        clean = _prediction(run, examples, examples.clean, place)
        if clean == UNKNOWN:
            clean = f"{percent(right)} % of pixels" if examples.dense else _right(right)
        radius = least[place]
        found = "never" if np.isinf(radius) else format_epsilon(radius, norm)
        found = _WRONG if radius == WRONG_WHEN_CLEAN else found
        held, broken = _bars(_classes(examples, place)), _broken_by(radius, by[place])
        own = Filter(held, "", _any_flip(examples, place), broken)
        value = 1e9 if np.isinf(radius) else float(radius)
        rows.append(
            ExampleRow(
                int(examples.index[place]), label, clean, found, value, several(by[place], 4), own
            )
        )
    return rows


def _right(value: float) -> str:
    return "right" if value > 0.5 else "wrong"


def _broken_by(radius: float, names: list[str]) -> str:
    """The attacks that broke an example, between bars; clean where it was wrong without one."""
    return _bars([CLEAN] if radius == WRONG_WHEN_CLEAN else names)


def _bars(values: Iterable[object]) -> str:
    """Values between bars, so that a script finds one of them."""
    found = "|".join(map(str, values))
    return f"|{found}|" if found else ""


def _classes(examples: Examples, position: int) -> np.ndarray:
    """The classes that an example has: its label, or those of its pixels but void ones."""
    label = np.asarray(examples.label[position])
    if not np.issubdtype(label.dtype, np.integer):
        return np.zeros(0, int)  # labels of a metric of one's own are no classes
    return np.flatnonzero(np.bincount(label[label >= 0].ravel()))


def _label(run: RunFiles, examples: Examples, position: int) -> str:
    return "" if examples.dense else run.class_name(int(examples.label[position]))


def _prediction(run: RunFiles, examples: Examples, line: int, position: int) -> str:
    if examples.dense:
        return f"{percent(float(examples.correct[line, position]))} % of pixels right"
    if examples.prediction is None or examples.prediction[line, position] < 0:
        return UNKNOWN
    said = run.class_name(int(examples.prediction[line, position]))
    if examples.confidence is None or np.isnan(examples.confidence[line, position]):
        return said
    return f"{said} ({percent(float(examples.confidence[line, position]), 0)}\u00a0%)"


def _broken(radius: float, names: list[str], norm: str) -> str:
    if radius == WRONG_WHEN_CLEAN:
        return f"{_WRONG} already"
    if np.isinf(radius):
        return "by none of the attacks"
    return f"from ε = {format_epsilon(float(radius), norm)}, by {several(names, 6)}"


def _route(examples: Examples, line: int, position: int) -> tuple[int, int] | None:
    if examples.expert is None:
        return None
    pair = int(examples.expert[examples.clean, position]), int(examples.expert[line, position])
    return pair if min(pair) >= 0 else None


def _flipped(moved: tuple[int, int] | None) -> str:
    if moved is None:
        return _UNKNOWN_ROUTE
    return "yes" if moved[0] != moved[1] else "no"


def _any_flip(examples: Examples, position: int) -> str:
    if examples.expert is None:
        return _UNKNOWN_ROUTE
    own = examples.expert[:, position]
    before = own[examples.clean]
    if before < 0 or (own >= 0).sum() < 2:
        return _UNKNOWN_ROUTE
    return "yes" if ((own >= 0) & (own != before)).any() else "no"


def _size(examples: Examples, line: int, position: int, norm: str) -> Markup | None:
    """‖δ‖ of each frame; of an image it is one number, which the difference's scale tells."""
    if examples.size is None or examples.size.shape[-1] < 2:
        return None
    values = examples.size[line, position].astype(np.float64)
    if not np.isfinite(values).any():
        return None
    scale, unit = (255, " grey levels") if norm == "linf" else (1, "")
    titles = [f"frame {t}: {scale * v:.2f}{unit}" for t, v in enumerate(values.tolist())]
    low, high = scale * np.nanmin(values), scale * np.nanmax(values)
    said = f"{NORMS.get(norm, norm)} norm of δ by frame, {low:.2f} to {high:.2f}{unit}"
    return heat.strip(values, said, titles)


def _steps(shown: Shown, place: int, norm: str) -> Markup | None:
    if shown.step_sizes is None or not np.isfinite(shown.step_sizes[place]).any():
        return None
    scale, unit = (255, " grey levels") if norm == "linf" else (1, "")
    own = scale * shown.step_sizes[place].astype(np.float64)
    said = f"step sizes of temporal momentum, {np.nanmin(own):.3g} to {np.nanmax(own):.3g}{unit}"
    return heat.heat_map(own, said, "step", "frame")


def _weights(examples: Examples, line: int, position: int, name: str) -> Markup | None:
    if examples.weights is None or examples.weights.shape[-1] < 2:
        return None
    before, after = (
        examples.weights[at, position].astype(np.float64).tolist() for at in (examples.clean, line)
    )
    if not np.isfinite(before).any():
        return None
    known = after if np.isfinite(after).any() else None
    return bars.pairs(before, known, f"router weights, clean and under attack: {name}")


def _maps(run: RunFiles, shown: Shown, place: int, budget: int) -> list[Track]:
    titles = {
        "label_map": "labels",
        "clean_map": "predicted, clean",
        "adversarial_map": "predicted, under attack",
    }
    named, pictures = len(run.description.get("classes") or ()), {}
    for name, title in titles.items():
        if (values := getattr(shown, name)) is not None:
            own = values[place].astype(int)
            pictures[title] = sprites.label_colours(own if own.ndim == 3 else own[None], named)
    if not pictures:
        return []
    strips = sprites.strips_of(list(pictures.values()), budget, maps=True)
    return [Track(title, strip, title) for title, strip in zip(pictures, strips, strict=True)]
