"""The page of a study: `jaxmoe study FILE.py --report`."""

import pathlib
import shlex
import statistics
import urllib.parse
from collections.abc import Sequence

from jaxmoe.commands.evaluation_report import headline
from jaxmoe.commands.study_report import note, tables_of
from jaxmoe.config.study import Study
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE
from jaxmoe.evaluation.measures.significance import Estimate, estimate_mean
from jaxmoe.files import write_text
from jaxmoe.reporting.page import REPORT
from jaxmoe.reporting.page.figures.intervals import Interval, intervals
from jaxmoe.reporting.page.figures.lines import percent_axis
from jaxmoe.reporting.page.study import StudyPart, StudyRun, study_page
from jaxmoe.runs.study.found import Found
from jaxmoe.runs.study.results import Costs, Results, by_architecture, difference, over_seeds


def write(
    study: Study,
    found: Sequence[Found],
    costs: Costs,
    runs: pathlib.Path,
    jobs: int,
    command: str,
) -> pathlib.Path:
    """Writes the page of a study into its folder; returns the page's path.

    Args:
      study: of the arms.
      found: of all runs that are done.
      costs: what the arms take.
      runs: the study's folder.
      jobs: how many runs trained at once.
      command: the command that writes the page again.
    """
    parts = [
        part(results, runs, architecture, f"part{place}")
        for place, (architecture, results) in enumerate(
            by_architecture(study, found, costs).items()
        )
    ]
    own = [_run(study, each, runs) for each in found]
    path = runs / REPORT
    write_text(path, study_page(runs.resolve().name, parts, own, note(study, jobs), command))
    return path


def part(results: Results, runs: pathlib.Path, architecture: str, anchor: str) -> StudyPart:
    """Returns the section of one architecture; `runs` is the study's folder."""
    looks = [(CLEAN, 0.0, "clean")]
    for epsilon in results.study.epsilons:
        looks.append((WORST_CASE, epsilon, f"worst case at ε = {results.radius(epsilon)}"))
    rows = []
    for arm, own in results.arms.items():
        figures = [
            Interval(
                f"series{place % 8}", name, *_in_percent(estimate_mean(over_seeds(own, *look)))
            )
            for place, (*look, name) in enumerate(looks)
        ]
        rows.append((results.title(arm), figures))
    names = [name for *_, name in looks]
    return StudyPart(
        anchor,
        architecture or "What came out",
        findings(results),
        intervals(
            f"Accuracy of each arm with its 95 % interval: {', '.join(names)}. The tables below "
            "have the figures.",
            rows,
            percent_axis("accuracy, %, with 95 % intervals"),
        ),
        [(f"series{place % 8}", name) for place, name in enumerate(names)],
        tables_of(results, runs),
    )


def findings(results: Results) -> list[str]:
    """Returns sentences on the arm that withstood most, and on those that the study compares."""
    said = [results.incomplete] if results.incomplete else []
    if not results.alike:
        return said
    largest, simplest = max(results.study.epsilons), results.study.simplest
    worst = {arm: over_seeds(runs, WORST_CASE, largest) for arm, runs in results.arms.items()}
    best, *others = sorted(worst, key=lambda arm: -worst[arm].mean())
    value, low, high = _in_percent(estimate_mean(worst[best]))
    clean = 100 * over_seeds(results.arms[best], CLEAN, 0.0).mean()
    said.append(
        f"{results.title(best)} is the highest in the worst case at ε = "
        f"{results.radius(largest)}: right on {value:.1f} % of {len(worst[best])} examples "
        f"({low:.1f} to {high:.1f}), and on {clean:.1f} % when clean."
    )
    if others:
        said.append(_compared(results, best, others[0], "the next"))
    for arm in results.beside:
        if arm != simplest and simplest in results.arms:
            said.append(_compared(results, arm, simplest, "the simplest arm"))
    return [*dict.fromkeys(said), *_routers(results)]


def _compared(results: Results, arm: str, other: str, what: str) -> str:
    largest = max(results.study.epsilons)
    found = difference(results.pairs(arm, other), WORST_CASE, largest)
    side = "above" if found.value >= 0 else "below"
    held = "; the interval holds 0, so these examples do not tell them apart."
    return (
        f"{results.title(arm)} is {100 * abs(found.value):.1f} points {side} "
        f"{results.title(other)}, {what}{_cost(results, arm, other)}, in the worst case at ε = "
        f"{results.radius(largest)} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        + (held if found.low <= 0 <= found.high else ".")
    )


def _cost(results: Results, arm: str, other: str) -> str:
    """Returns how many times another arm's gradients an arm took, where they are not as many."""
    costs = [results.cost(arm), results.cost(other)]
    if None in costs or not costs[1].gradients:
        return ""
    times = costs[0].gradients / costs[1].gradients
    return "" if 0.8 <= times <= 1.25 else f", for {times:.2g} times its gradients"


def _routers(results: Results) -> list[str]:
    """Returns a sentence on what the routers of all mixtures decide, where it was measured."""
    costs, better = [], 0
    for runs in results.arms.values():
        found = [run.details.get("specialization") for run in runs]
        if not all(found) or any(each["random_route"] is None for each in found):
            continue
        mean = {
            name: statistics.mean(each[name]["value"] for each in found)
            for name in ("mixture", "random_route", "best_single")
        }
        costs.append(100 * (mean["mixture"] - mean["random_route"]))
        better += mean["best_single"] >= mean["mixture"]
    if not costs:
        return []
    mixtures = "the mixture" if len(costs) == 1 else f"the {len(costs)} mixtures"
    least, most = f"{min(costs):+.1f}", f"{max(costs):+.1f}"
    between = least if least == most else f"from {least} to {most}"
    return [
        f"A route drawn at random in the router's place costs {mixtures} {between} points of "
        f"clean accuracy; the best expert alone is as good or better in {better} of {len(costs)}."
    ]


def _in_percent(found: Estimate) -> tuple[float, float, float]:
    return 100 * found.value, 100 * found.low, 100 * found.high


def _run(study: Study, found: Found, runs: pathlib.Path) -> StudyRun:
    folder = runs / found.cell.name
    there = (folder / REPORT).is_file()
    return StudyRun(
        f"{study.arms[found.cell.arm].title}, {found.cell.block.name}",
        headline(found.rows),
        urllib.parse.quote(f"{found.cell.name}/{REPORT}") if there else None,
        shlex.join(["jaxmoe", "report", str(folder)]),
    )
