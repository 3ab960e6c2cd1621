"""The tables and the figure of a study.

Axes: N = test examples of all blocks.
"""

import math
import pathlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxmoe.attacks.cascade import CASCADES
from jaxmoe.attacks.registry import ATTACKS
from jaxmoe.config.study import Study
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE
from jaxmoe.evaluation.measures.significance import estimate_difference, estimate_mean
from jaxmoe.files import read_json, write_text
from jaxmoe.reporting.figures import new_figure
from jaxmoe.reporting.results import as_csv, markdown_table
from jaxmoe.runs.study.cost import Cost
from jaxmoe.runs.study.found import TRANSFER, Found

MARKDOWN, CSV, PNG = "study.md", "study.csv", "study.png"


class Results:
    """What the runs found, by arm.

    Attributes:
      study: what was compared.
      arms: those that have runs, in the study's order.
    """

    def __init__(self, study: Study, found: Sequence[Found], costs: Mapping[tuple[str, str], Cost]):
        """Takes what was found.

        Args:
          study: what was compared.
          found: of one architecture.
          costs: by architecture and arm.
        """
        self.study, self.costs = study, costs
        own: dict[str, list[Found]] = {}
        for each in found:
            own.setdefault(each.cell.arm, []).append(each)
        self.arms = {name: own[name] for name in study.arms if name in own}

    def title(self, arm: str) -> str:
        """The arm's name in tables."""
        return self.study.arms[arm].title

    def share(self, runs: Sequence[Found], attack: str, epsilon: float) -> str:
        """Robust accuracy over the examples of all runs in %, ± the standard error over runs."""
        worst = attack == WORST_CASE
        if not worst and any((attack, epsilon) not in run.correct for run in runs):
            return "–"
        right = [run.worst(epsilon) if worst else run.correct[attack, epsilon] for run in runs]
        value = f"{100 * np.concatenate(right).mean():.1f}"
        if len(right) == 1:
            return value
        error = statistics.stdev(100 * each.mean() for each in right) / math.sqrt(len(right))
        return f"{value} ± {error:.1f}"


def tables(
    study: Study, found: Sequence[Found], costs: Mapping[tuple[str, str], Cost], runs: pathlib.Path
) -> str:
    """Returns all tables as Markdown.

    Args:
      study: what was compared.
      found: of all runs that are done.
      costs: by architecture and arm.
      runs: the study's folder, for its transfer matrices.
    """
    parts = []
    for architecture in study.architectures:
        own = [each for each in found if each.cell.block.architecture == architecture]
        if not own:
            continue
        results = Results(study, own, costs)
        parts += [f"## {architecture}"] if architecture else []
        for epsilon in study.epsilons:
            parts.append(accuracy_table(results, epsilon))
        parts.append(cost_table(results))
        if any(run.details.get("specialization") for run in own):
            parts.append(mixture_table(results))
        parts += [paired_table(results, arm) for arm in study.compared if arm in results.arms]
        names = {each.cell.block.name for each in own}
        parts += [transfer_table(results, runs, names)] if study.transfer else []
    return "\n\n".join(filter(None, parts)) + "\n"


def accuracy_table(results: Results, epsilon: float) -> str:
    """A line for each arm: clean accuracy, each attack, the worst case and its interval."""
    shown = dict.fromkeys(
        name
        for runs in results.arms.values()
        for run in runs
        for name, at in run.correct
        if at == epsilon and name != CLEAN
    )
    lines = []
    for arm, runs in results.arms.items():
        n = sum(run.rows[0].n for run in runs)
        cells = [results.share(runs, CLEAN, 0.0)]
        cells += [results.share(runs, name, epsilon) for name in (*shown, WORST_CASE)]
        worst = estimate_mean(np.concatenate([run.worst(epsilon) for run in runs]))
        interval = f"{100 * worst.low:.1f} to {100 * worst.high:.1f}"
        doubts = sorted({name for run in runs for name in _doubts(run)})
        lines.append(
            [
                results.title(arm),
                str(len(runs)),
                str(n),
                *cells,
                interval,
                ", ".join(doubts) or "none",
            ]
        )
    titles = [f"ε = {_radius(epsilon)}, %", "runs", "n", "clean", *map(_title, shown)]
    titles += ["worst case", "its 95 % interval", "doubtful checks"]
    return "\n".join(markdown_table(titles, lines))


def cost_table(results: Results) -> str:
    """A line for each arm: what its training took, and one forward pass of it."""
    lines = []
    for arm, runs in results.arms.items():
        cost = results.costs.get((runs[0].cell.block.architecture, arm))
        start = results.study.arms[arm].start
        lines.append(
            [
                results.title(arm),
                "–" if start is None else results.title(start),
                "–" if cost is None else f"{cost.gradients:.0f}",
                "–" if cost is None else str(cost.epochs),
                f"{statistics.mean(run.seconds for run in runs) / 60:.1f}",
                _mean(
                    runs, lambda run: (run.details.get("gflops") or {}).get("sparse"), 1, "{:.4g}"
                ),
                _mean(
                    runs, lambda run: (run.details.get("gflops") or {}).get("ratio"), 1, "{:.2f}"
                ),
            ]
        )
    titles = ["training", "starts from", "gradients", "epochs", "minutes"]
    return "\n".join(markdown_table([*titles, "GFLOPs", "÷ dense"], lines))


def mixture_table(results: Results) -> str:
    """A line for each mixture: whether it is one, and how smooth it is."""
    largest = max(results.study.epsilons)

    def figure(name: str) -> Callable[[Found], float | None]:
        return lambda run: (run.details["specialization"][name] or {}).get("value")

    def of_row(field: str) -> Callable[[Found], float | None]:
        return lambda run: next(
            (
                getattr(row, field)
                for row in run.rows
                if row.epsilon == largest and row.attack == "pgd"
            ),
            None,
        )

    lines = []
    for arm, runs in results.arms.items():
        if not all(run.details.get("specialization") for run in runs):
            continue
        lines.append(
            [
                results.title(arm),
                _mean(runs, figure("mixture")),
                _mean(runs, figure("random_route")),
                _mean(runs, figure("best_single")),
                _mean(runs, lambda run: run.details["specialization"]["agreement"]),
                _mean(runs, lambda run: min(run.details["specialization"]["load"])),
                _mean(runs, _trust, 1, "{:.2f}"),
                _mean(runs, of_row("flip_rate")),
                _mean(runs, of_row("lipschitz_model_mean"), 1, "{:.3g}"),
                _mean(runs, of_row("lipschitz_router_weights_mean"), 1, "{:.3g}"),
                ", ".join(sorted({run.details["specialization"]["kind"] for run in runs})),
            ]
        )
    titles = ["mixtures, clean %", "accuracy", "random route", "best expert alone"]
    titles += [
        "two experts agree",
        "smallest load",
        "trust",
        f"PGD {_radius(largest)} turns",
        "L_Lip(F)",
    ]
    return "\n".join(markdown_table([*titles, "L_Lip(r)", "kind"], lines)) if lines else ""


def paired_table(results: Results, arm: str) -> str:
    """A line for each other arm: by how many points `arm` is above it, example by example."""
    own = {run.cell.block: run for run in results.arms[arm]}
    lines = []
    for other, runs in results.arms.items():
        pairs = [(own[run.cell.block], run) for run in runs if run.cell.block in own]
        if other == arm or not pairs:
            continue
        cells = [_difference(pairs, lambda run: run.correct[CLEAN, 0.0])]
        for epsilon in results.study.epsilons:
            cells.append(_difference(pairs, lambda run, e=epsilon: run.worst(e)))
        lines.append([results.title(other), *cells])
    worst = [f"worst case at {_radius(epsilon)}" for epsilon in results.study.epsilons]
    return "\n".join(markdown_table([f"{results.title(arm)} less …", "clean", *worst], lines))


def transfer_table(results: Results, runs: pathlib.Path, blocks_of: Iterable[str]) -> str:
    """A line for each arm: right under what was made on all other arms, by attack."""
    rows = []
    for block in sorted(blocks_of):
        file = runs / block / TRANSFER / "transfer.json"
        if file.is_file():
            rows += read_json(file)["rows"]
    black = [row for row in rows if row["source"] == "all others"]
    if not black:
        return ""
    columns = list(dict.fromkeys((row["attack"], row["epsilon"]) for row in black))
    lines = []
    for arm in results.arms:
        cells = []
        for attack, epsilon in columns:
            own = [
                row
                for row in black
                if pathlib.PurePath(row["target"]).name == arm
                and (row["attack"], row["epsilon"]) == (attack, epsilon)
            ]
            n = sum(row["n"] for row in own)
            right = sum(row["robust_accuracy"] * row["n"] for row in own)
            cells.append(f"{100 * right / n:.1f}" if n else "–")
        lines.append([results.title(arm), *cells])
    titles = [f"{_title(attack)} {_radius(epsilon)}" for attack, epsilon in columns]
    return "\n".join(markdown_table(["transfer from all others, %", *titles], lines))


def draw(study: Study, found: Sequence[Found], path: pathlib.Path) -> None:
    """Draws the worst case of every arm, a panel for each architecture, with intervals."""
    shown = [a for a in study.architectures if any(f.cell.block.architecture == a for f in found)]
    figure = new_figure(7.2, 0.7 + 0.32 * len(study.arms) * len(shown))
    for place, architecture in enumerate(shown):
        own = [each for each in found if each.cell.block.architecture == architecture]
        results = Results(study, own, {})
        axes = figure.add_subplot(len(shown), 1, place + 1)
        for i, epsilon in enumerate((0.0, *study.epsilons)):
            for y, runs in enumerate(results.arms.values()):
                right = [r.worst(epsilon) if epsilon else r.correct[CLEAN, 0.0] for r in runs]
                mean = estimate_mean(np.concatenate(right))
                label = (
                    ("clean" if not epsilon else f"worst case at {_radius(epsilon)}")
                    if not y
                    else None
                )
                error = [[100 * (mean.value - mean.low)], [100 * (mean.high - mean.value)]]
                axes.errorbar(
                    100 * mean.value,
                    y + 0.12 * i,
                    xerr=error,
                    fmt="osd^v"[i % 5],
                    color=f"C{i}",
                    label=label,
                )
        axes.set_yticks(range(len(results.arms)), [results.title(arm) for arm in results.arms])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.grid(alpha=0.3)
        axes.set_xlabel(
            f"{architecture + ': ' if architecture else ''}accuracy, %, with 95 % intervals"
        )
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def write(
    study: Study, found: Sequence[Found], costs: Mapping[tuple[str, str], Cost], runs: pathlib.Path
) -> str:
    """Writes the tables, the figure and a CSV file of all rows; returns the tables."""
    text = tables(study, found, costs, runs)
    write_text(runs / MARKDOWN, text)
    records = [
        {"block": each.cell.block.name, "arm": each.cell.arm, **row.as_record()}
        for each in found
        for row in each.rows
    ]
    fields = ["block", "arm", "attack", "epsilon", "norm", "robust_accuracy", "n", "seed"]
    fields += ["gradient_evaluations", "seconds", "flip_rate", "lipschitz_model_mean"]
    rows = [{name: record[name] for name in fields} for record in records]
    write_text(runs / CSV, as_csv(rows, fields))
    draw(study, found, runs / PNG)
    return text


def _difference(pairs: Sequence[tuple[Found, Found]], of: Callable[[Found], np.ndarray]) -> str:
    first, second = (np.concatenate([of(pair[i]) for pair in pairs]) for i in (0, 1))
    found = estimate_difference(first, second)
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _mean(
    runs: Sequence[Found],
    of: Callable[[Found], float | None],
    scale: float = 100,
    form: str = "{:.1f}",
) -> str:
    values = [of(run) for run in runs]
    if any(value is None for value in values):
        return "–"
    return form.format(scale * statistics.mean(values))


def _trust(run: Found) -> float | None:
    """Returns the mean weight of the most trusted expert on clean examples, if it was measured."""
    return (run.rows[0].measures or {}).get("trust")


def _doubts(run: Found) -> list[str]:
    checks = run.details.get("checks") or ()
    return [check["name"] for check in checks if check["verdict"] == "flag"]


def _title(attack: str) -> str:
    if attack in CASCADES:
        return CASCADES[attack].title
    return ATTACKS[attack].title if attack in ATTACKS else attack


def _radius(epsilon: float) -> str:
    grey = 255 * epsilon
    return f"{grey:g}/255" if abs(grey - round(grey, 3)) < 1e-6 else f"{epsilon:.3g}"
