"""The verdict: what the model is, how robust, what broke it, and whether that can be trusted."""

from typing import Any, NamedTuple

import numpy as np

from jaxmoe.attacks import CASCADES
from jaxmoe.evaluation.engine.rows import Check, Row
from jaxmoe.evaluation.engine.verdict import verdict_line
from jaxmoe.reporting.page.gather import RunFiles
from jaxmoe.reporting.page.wording import (
    NORMS,
    count_of,
    epsilon,
    figure_of,
    percent,
    range_of,
    several,
    strongest,
)
from jaxmoe.reporting.progress import show_seconds

POOLINGS = {"mean": "the mean of the logits", "max": "the largest logits"}
_ORDER = {"flag": 0, "pass": 1}  # of checks: what failed comes first


class Figure(NamedTuple):
    """A large number of the card."""

    title: str
    text: str
    range: str
    note: str
    share: float  # 0–1, for a bar
    low: float
    high: float


class Trust(NamedTuple):
    """The answer to "can these figures be trusted?"."""

    level: str  # good, warn or bad
    head: str
    sentence: str
    checks: tuple[Check, ...]


class Verdict(NamedTuple):
    """The content of the card."""

    facts: list[tuple[str, str]]
    figures: list[Figure]
    trust: Trust
    router: str | None
    costs: list[tuple[str, str]]
    notes: list[str]


def verdict(run: RunFiles) -> Verdict:
    """Returns the card of a run."""
    notes = [str(note) for note in run.details.get("notes") or ()]
    return Verdict(
        facts=[(name, text) for name, text in _facts(run).items() if text],
        figures=_figures(run),
        trust=_trust(run),
        router=(run.details.get("specialization") or {}).get("sentence"),
        costs=_costs(run),
        notes=notes,
    )


def model_of(config: dict[str, Any], part: str | None = None) -> str:
    """Returns in words what a config's model is, or a part of it; nothing without a config."""
    mixture, expert = config.get("mixture", {}), config.get("expert", {}).get("name")
    if not expert:
        return ""
    count = mixture.get("experts", 1)
    if part is not None:
        of = f"{count} × {expert}"
        if part in POOLINGS:
            return f"{POOLINGS[part]} of {of}, without a router"
        return f"{part.replace('expert', 'expert ')} of {of}: one network, without a router"
    if count == 1:
        model = f"one {expert}"
    else:
        router = config.get("router", {}).get("name", "unknown")
        model = f"{count} × {expert}, top-{mixture.get('top_k', 1)}, {router} router"
    if mixture.get("dual_weight") is not None:
        model = f"dual model, α = {mixture['dual_weight']:g}, of two mixtures of {model}"
    return model


def _facts(run: RunFiles) -> dict[str, str]:
    data, clean = run.config.get("data", {}), run.clean
    classes = len(run.description.get("classes") or ())
    radii = list(dict.fromkeys(epsilon(row) for row in run.attacks))
    threat = f"{NORMS.get(clean.norm, clean.norm)}, ε = {several(radii, 6)}" if radii else ""
    examples = f"{clean.n} test examples" + (f", {classes} classes" if classes else "")
    return {
        "model": model_of(run.config, run.part),
        "recipe": str(run.config.get("recipe", {}).get("name", "")),
        "data": str(data.get("name", "")),
        "judged on": examples,
        "threat model": threat,
        "attacks": several(list(dict.fromkeys(row.attack for row in run.attacks)), 12),
    }


def _figures(run: RunFiles) -> list[Figure]:
    what = "mIoU" if run.dense else "accuracy"
    found = [_figure(run.clean, f"clean {what}", "without an attack")]
    for row in run.worst:
        most = strongest(run.attacks, row.epsilon)
        note = "" if most is None else f"strongest: {most.attack}, which leaves {_percent(most)}"
        if most is not None and most.epsilon < row.epsilon - 1e-9:
            note += f" at ε = {epsilon(most)} already"
        if most is not None and not run.dense:
            note += _overlap(run, most.attack, row.epsilon)
        found.append(_figure(row, f"worst case, ε = {epsilon(row)}", note))
    if not run.worst and run.attacks:
        most = strongest(run.attacks, max(row.epsilon for row in run.attacks))
        title = f"lowest so far, ε = {epsilon(most)}"
        found.append(_figure(most, title, f"under {most.attack}; no worst case was computed"))
    return found


def _overlap(run: RunFiles, attack: str, radius: float) -> str:
    """Returns how many of the examples that any attack breaks this one breaks, in words."""
    examples = run.examples
    if examples is None:
        return ""
    right = examples.correct[examples.clean] > 0.5
    broken = {
        line: right & (examples.correct[place] < 0.5)
        for place, line in enumerate(examples.lines)
        if line[1] <= radius + 1e-9 and place != examples.clean
    }
    own = [found for (name, _), found in broken.items() if name == attack]
    if not own or len({name for name, _ in broken}) == 1:
        return ""
    by_all, by_one = (int(np.any(found, axis=0).sum()) for found in ([*broken.values()], own))
    return f"; it breaks {by_one} of the {by_all} that any attack breaks"


def _figure(row: Row, title: str, note: str) -> Figure:
    value = figure_of(row)
    between = range_of(row)
    low, high = (float(part) / 100 for part in between.split(" to ")) if between else (value, value)
    said = f"95 % interval {between} %" if between else ""
    return Figure(title, _percent(row), said, note, value, low, high)


def _percent(row: Row) -> str:
    return f"{percent(figure_of(row))} %"


def _trust(run: RunFiles) -> Trust:
    checks = run.checks
    line = verdict_line(checks)
    flags = [check for check in checks if check.verdict == "flag"]
    ran = [check for check in checks if check.verdict != "not run"]
    not_run = len(checks) - len(ran)
    left = f" ({not_run} of {len(checks)} not run)" if not_run else ""
    ordered = tuple(sorted(checks, key=lambda check: _ORDER.get(check.verdict, 2)))
    if flags:
        head = f"No: {len(flags)} of {_checks(ran)} failed{left}"
        return Trust("bad", head, line, ordered)
    if not run.finished:
        line = "The evaluation was stopped before its end. A later attack may be stronger."
        return Trust("warn", "Not yet", line, ordered)
    if not any(check.kind == "masking" for check in ran):
        return Trust("warn", "Nobody checked", line, ordered)
    if not_run:
        head = f"Nothing speaks against it: {_checks(ran)} passed, {not_run} did not run"
        return Trust("warn", head, line, ordered)
    return Trust("good", f"Yes, as far as {_checks(ran)} can tell", line, ordered)


def _checks(checks: list[Check]) -> str:
    return f"{len(checks)} check" + ("" if len(checks) == 1 else "s")


def training_of(run: RunFiles) -> str:
    """Returns the time and the steps of training in words; nothing where they are not known."""
    if "seconds" not in run.trained:
        return ""
    steps = run.trained.get("global_step")
    said = show_seconds(run.trained["seconds"])
    return said + (f", {count_of(steps)} steps" if steps else "")


def _strength(run: RunFiles) -> str:
    """Returns the steps and starts of the attacks in words; nothing where they are not known."""
    settings = run.details.get("settings") or {}
    steps, starts = settings.get("steps"), settings.get("restarts")
    if not run.attacks or steps is None or starts is None:
        return ""
    cascades = [row.attack for row in run.attacks if row.attack in CASCADES]
    but = f"; {several(list(dict.fromkeys(cascades)))} by rules of its own" if cascades else ""
    return f"{steps} steps, {starts} start{'' if starts == 1 else 's'}{but}"


def _costs(run: RunFiles) -> list[tuple[str, str]]:
    costs = []
    if said := training_of(run):
        costs.append(("training", said))
    if run.attacks:
        gradients = sum(row.gradient_evaluations for row in run.attacks)
        seconds = sum(row.seconds for row in run.attacks)
        compiled = sum(row.compile_seconds for row in run.rows if row.attack != "worst-case")
        costs.append(
            (
                "attacks",
                f"{count_of(gradients)} gradients an example, {show_seconds(seconds)} on "
                f"{count_of(run.clean.n)} examples, and {show_seconds(compiled)} to compile",
            )
        )
    if said := _strength(run):
        costs.append(("each attack", said))
    flops = run.details.get("gflops")
    if flops:
        costs.append(
            (
                "one example",
                f"{flops['sparse']:.3g} GFLOPs; all experts would take {flops['dense']:.3g}",
            )
        )
    return costs
