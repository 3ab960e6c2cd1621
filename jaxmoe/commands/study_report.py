"""The tables and the figure of a study.

Axes: N = test examples of all folds, each once.
"""

import math
import pathlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxmoe.attacks.cascade import CASCADES, CUSTOM
from jaxmoe.attacks.registry import ATTACKS
from jaxmoe.config.study import Study
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE
from jaxmoe.evaluation.measures.significance import estimate_difference, estimate_mean
from jaxmoe.files import read_json, write_text
from jaxmoe.reporting.figures import new_figure
from jaxmoe.reporting.results import as_csv, markdown_table
from jaxmoe.runs.study.cells import words
from jaxmoe.runs.study.cost import Cost
from jaxmoe.runs.study.found import TRANSFER, Found

MARKDOWN, CSV, PNG = "study.md", "study.csv", "study.png"
Costs = Mapping[tuple[str, str], Cost]
"""By architecture and arm."""

_NOTE = (
    "n: test examples, each once; where there are several seeds, its share of them. Intervals are "
    "of the examples, with the models as they are; ± is the standard error over {over}. A gradient "
    "is a training gradient of one expert, for each training example. Minutes: of the arm's own "
    "training, with compilation, {jobs} at once."
)


class Results:
    """The results of one architecture's runs, by arm, in the blocks that all arms have.

    Attributes:
      study: of the arms.
      arms: those that have runs, in the study's order.
      left_out: runs in blocks that some arm lacks.
    """

    def __init__(self, study: Study, found: Sequence[Found], costs: Costs):
        """Takes what was found.

        Args:
          study: of the arms.
          found: of one architecture.
          costs: what the arms take.
        """
        self.study, self.costs = study, costs
        own: dict[str, dict] = {}
        for each in found:
            own.setdefault(each.cell.arm, {})[each.cell.block] = each
        shared = set.intersection(*(set(runs) for runs in own.values()))
        shared = shared or {block for runs in own.values() for block in runs}
        self.arms = {
            name: [run for block, run in own[name].items() if block in shared]
            for name in study.arms
            if name in own
        }
        self.left_out = len(found) - sum(map(len, self.arms.values()))

    def title(self, arm: str) -> str:
        """The arm's name in tables."""
        return self.study.arms[arm].title

    def cost(self, arm: str) -> Cost | None:
        """Returns the cost of the arm, if it was counted."""
        return self.costs.get((self.arms[arm][0].cell.block.architecture, arm))

    def share(self, runs: Sequence[Found], attack: str, epsilon: float) -> str:
        """Robust accuracy in %, ± the standard error over folds, or else over seeds."""
        if attack != WORST_CASE and any((attack, epsilon) not in run.correct for run in runs):
            return "–"
        each = [100 * float(of(run, attack, epsilon).mean()) for run in runs]
        value = f"{100 * over_seeds(runs, attack, epsilon).mean():.1f}"
        folds: dict[str, list[float]] = {}
        for run, mean in zip(runs, each, strict=True):
            folds.setdefault(run.cell.block.fold, []).append(mean)
        units = [statistics.mean(means) for means in folds.values()] if len(folds) > 1 else each
        if len(units) == 1:
            return value
        return f"{value} ± {statistics.stdev(units) / math.sqrt(len(units)):.1f}"


def of(run: Found, attack: str, epsilon: float) -> np.ndarray:
    """Returns what was right of a run's examples."""
    return run.worst(epsilon) if attack == WORST_CASE else run.correct[attack, epsilon]


def over_seeds(runs: Sequence[Found], attack: str, epsilon: float) -> np.ndarray:
    """Returns `[N]`, what was right of each example: of several seeds the share of them.

    Raises:
      ValueError: runs of one fold were judged by other examples than each other.
    """
    folds: dict[str, list[Found]] = {}
    for run in runs:
        folds.setdefault(run.cell.block.fold, []).append(run)
    shares = []
    for own in folds.values():
        for other in own[1:]:
            _check_same(own[0], other)
        shares.append(np.mean([of(run, attack, epsilon) for run in own], axis=0))
    return np.concatenate(shares)


def _check_same(first: Found, other: Found) -> None:
    if not np.array_equal(first.index, other.index):
        raise ValueError(
            f"{first.cell.name} and {other.cell.name} were judged by other test examples; "
            "expected the same for all arms of a fold"
        )


def tables(
    study: Study, found: Sequence[Found], costs: Costs, runs: pathlib.Path, jobs: int
) -> str:
    """Returns all tables as Markdown.

    Args:
      study: of the arms.
      found: of all runs that are done.
      costs: what the arms take.
      runs: the study's folder, for its transfer matrices.
      jobs: how many runs trained at once.
    """
    parts = []
    for architecture in study.architectures:
        own = [each for each in found if each.cell.block.architecture == architecture]
        if not own:
            continue
        results = Results(study, own, costs)
        parts += [f"## {architecture}"] if architecture else []
        if results.left_out:
            parts.append(f"{results.left_out} runs are in blocks that other arms lack: left out.")
        parts += [accuracy_table(results, epsilon) for epsilon in study.epsilons]
        parts.append(cost_table(results))
        if any(run.details.get("specialization") for run in own):
            parts.append(mixture_table(results))
        beside = dict.fromkeys(filter(None, (*study.compared, study.simplest)))
        parts += [paired_table(results, arm) for arm in beside if arm in results.arms]
        names = {each.cell.block.name for each in own}
        parts += [transfer_table(results, runs, names)] if study.transfer else []
    over = "folds" if len(study.folds) > 1 else "seeds"
    parts.append(_NOTE.format(over=over, jobs=jobs))
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
        worst = over_seeds(runs, WORST_CASE, epsilon)
        cells = [results.share(runs, CLEAN, 0.0)]
        cells += [results.share(runs, name, epsilon) for name in (*shown, WORST_CASE)]
        found = estimate_mean(worst)
        interval = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
        doubts = ", ".join(sorted({name for run in runs for name in _doubts(run)})) or "none"
        counts = [str(len(runs)), str(len(worst))]
        lines.append([results.title(arm), *counts, *cells, interval, doubts])
    cascade = " + ".join(words(results.study.evaluation.get("cascade", ())))
    named = [cascade if name == CUSTOM else _title(name) for name in shown]
    titles = [f"ε = {_radius(epsilon)}, %", "runs", "n", "clean", *named]
    titles += ["worst case", "its 95 % interval", "doubtful checks"]
    return "\n".join(markdown_table(titles, lines))


def cost_table(results: Results) -> str:
    """A line for each arm: what its training took, and one forward pass of it."""
    lines = []
    for arm, runs in results.arms.items():
        cost, start = results.cost(arm), results.study.arms[arm].start
        counted = ["–"] * 5
        if cost is not None:
            counted = [f"{cost.gradients:.0f}", f"{cost.in_all:.0f}", str(cost.epochs)]
            counted += [f"{cost.gflops:.4g}", f"{cost.gflops / cost.dense_gflops:.2f}"]
        minutes = f"{statistics.mean(run.seconds for run in runs) / 60:.1f}"
        begins = "–" if start is None else results.title(start)
        lines.append([results.title(arm), begins, *counted[:3], minutes, *counted[3:]])
    titles = ["training", "starts from", "gradients", "with its start", "epochs", "minutes"]
    return "\n".join(markdown_table([*titles, "GFLOPs", "÷ dense"], lines))


def mixture_table(results: Results) -> str:
    """A line for each mixture: whether it is one, and how smooth it is."""
    largest = max(results.study.epsilons)

    def figure(name: str) -> Callable[[Found], float | None]:
        return lambda run: (run.details["specialization"][name] or {}).get("value")

    def under_pgd(field: str) -> Callable[[Found], float | None]:
        return lambda run: getattr(run.row("pgd", largest), field, None)

    columns: dict[str, Callable[[Sequence[Found]], str]] = {
        "accuracy": lambda runs: _mean(runs, figure("mixture")),
        "random route": lambda runs: _mean(runs, figure("random_route")),
        "best expert alone": lambda runs: _mean(runs, figure("best_single")),
        "two experts agree": lambda runs: _mean(
            runs, lambda run: run.details["specialization"]["agreement"]
        ),
        "smallest load": lambda runs: _mean(
            runs, lambda run: min(run.details["specialization"]["load"])
        ),
        "trust": lambda runs: _mean(runs, _trust, 1, "{:.2f}"),
        f"PGD {_radius(largest)} turns": lambda runs: _mean(runs, under_pgd("flip_rate")),
        "L_Lip(F)": lambda runs: _mean(runs, under_pgd("lipschitz_model_mean"), 1, "{:.3g}"),
        "L_Lip(r)": lambda runs: _mean(
            runs, under_pgd("lipschitz_router_weights_mean"), 1, "{:.3g}"
        ),
        "kind": lambda runs: ", ".join(
            sorted({run.details["specialization"]["kind"] for run in runs})
        ),
    }
    lines = [
        [results.title(arm), *(cell(runs) for cell in columns.values())]
        for arm, runs in results.arms.items()
        if all(run.details.get("specialization") for run in runs)
    ]
    return "\n".join(markdown_table(["mixtures, clean %", *columns], lines)) if lines else ""


def paired_table(results: Results, arm: str) -> str:
    """A line for each other arm: by how many points `arm` is above it, example by example."""
    lines = []
    for other, runs in results.arms.items():
        if other == arm:
            continue
        own = {run.cell.block: run for run in results.arms[arm]}
        pairs = [(own[run.cell.block], run) for run in runs if run.cell.block in own]
        if not pairs:
            continue
        cells = [_difference(pairs, CLEAN, 0.0)]
        cells += [_difference(pairs, WORST_CASE, epsilon) for epsilon in results.study.epsilons]
        lines.append([results.title(other), *cells])
    if not lines:
        return ""
    worst = [f"worst case at {_radius(epsilon)}" for epsilon in results.study.epsilons]
    return "\n".join(markdown_table([f"{results.title(arm)} less …", "clean", *worst], lines))


def transfer_table(results: Results, runs: pathlib.Path, blocks_of: Iterable[str]) -> str:
    """A line for each arm: right under what was made on all other arms, by attack."""
    rows = []
    for block in sorted(blocks_of):
        file = runs / block / TRANSFER / "transfer.json"
        if file.is_file():
            rows += read_json(file, list)
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
    table = markdown_table(["transfer from all other arms, %", *titles], lines)
    kin = "An arm with near relatives, such as its own ablations, has the harder sources."
    return "\n".join([*table, "", kin])


def draw(study: Study, found: Sequence[Found], path: pathlib.Path) -> None:
    """Draws the worst case of every arm, a panel for each architecture, with intervals."""
    shown = [a for a in study.architectures if any(f.cell.block.architecture == a for f in found)]
    figure = new_figure(7.2, 0.7 + 0.32 * len(study.arms) * len(shown))
    for place, architecture in enumerate(shown):
        own = [each for each in found if each.cell.block.architecture == architecture]
        results = Results(study, own, {})
        axes = figure.add_subplot(len(shown), 1, place + 1)
        for i, epsilon in enumerate((0.0, *study.epsilons)):
            attack = WORST_CASE if epsilon else CLEAN
            means = [estimate_mean(over_seeds(r, attack, epsilon)) for r in results.arms.values()]
            values = [100 * mean.value for mean in means]
            below = [100 * (mean.value - mean.low) for mean in means]
            above = [100 * (mean.high - mean.value) for mean in means]
            axes.errorbar(
                values,
                [y + 0.12 * i for y in range(len(means))],
                xerr=[below, above],
                fmt="osd^v"[i % 5],
                color=f"C{i}",
                label=f"worst case at {_radius(epsilon)}" if epsilon else "clean",
            )
        axes.set_yticks(range(len(results.arms)), [results.title(arm) for arm in results.arms])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.grid(alpha=0.3)
        name = f"{architecture}: " if architecture else ""
        axes.set_xlabel(f"{name}accuracy, %, with 95 % intervals")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def write(study: Study, found: Sequence[Found], costs: Costs, runs: pathlib.Path, jobs: int) -> str:
    """Writes the tables, the figure and a CSV file of all rows; returns the tables."""
    text = tables(study, found, costs, runs, jobs)
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


def _difference(pairs: Sequence[tuple[Found, Found]], attack: str, epsilon: float) -> str:
    for first, second in pairs:
        _check_same(first, second)
    first, second = (over_seeds([pair[i] for pair in pairs], attack, epsilon) for i in (0, 1))
    found = estimate_difference(first, second)
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _mean(
    runs: Sequence[Found],
    figure: Callable[[Found], float | None],
    scale: float = 100,
    form: str = "{:.1f}",
) -> str:
    values = [figure(run) for run in runs]
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
