"""The tables and the figure of a study."""

import pathlib
import statistics
from collections.abc import Callable, Sequence

from jaxmoe.attacks.cascade import CASCADES, CUSTOM
from jaxmoe.attacks.registry import ATTACKS
from jaxmoe.config.study import Study
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE
from jaxmoe.evaluation.measures.significance import Estimate, estimate_mean
from jaxmoe.files import read_json, write_text
from jaxmoe.reporting.figures import new_figure
from jaxmoe.reporting.results import as_csv
from jaxmoe.reporting.text_table import TextTable
from jaxmoe.runs.study.cells import words
from jaxmoe.runs.study.found import TRANSFER, Found
from jaxmoe.runs.study.results import Costs, Results, by_architecture, difference, over_seeds

MARKDOWN, CSV, PNG = "study.md", "study.csv", "study.png"
_NOTE = (
    "n: test examples, each once; where there are several seeds, its share of them. Intervals are "
    "of the examples, with the models as they are; ± is the standard error over {over}. A gradient "
    "is a training gradient of one expert, for each training example. Minutes: of one run's own "
    "training, with compilation, {jobs} at once."
)
_MIXTURES = (
    "Means over runs. Random route: accuracy where a route is drawn without a look at the example. "
    "Two experts agree: on so many examples two of them say the same class. Smallest load: of the "
    "expert that the fewest examples go to. Trust: mean weight of the most trusted expert."
)
_LIPSCHITZ = (
    "The figures are mean Lipschitz quotients between an example and what PGD made of it, over "
    "runs. F is the whole, r the router's weights, which one network lacks. They bound nothing."
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
    for architecture, results in by_architecture(study, found, costs).items():
        parts += [f"## {architecture}"] if architecture else []
        parts += filter(None, [results.incomplete])
        parts += [table.markdown() for table in tables_of(results, runs)]
    return "\n\n".join([*parts, note(study, jobs)]) + "\n"


def tables_of(results: Results, runs: pathlib.Path) -> list[TextTable]:
    """Returns all tables of one architecture; `runs` is the study's folder."""
    study = results.study
    found = [accuracy_table(results, epsilon) for epsilon in study.epsilons]
    found += [cost_table(results), mixture_table(results), lipschitz_table(results)]
    found += [paired_table(results, arm) for arm in results.beside]
    found += [transfer_table(results, runs)] if study.transfer else []
    return [table for table in found if table.rows]


def note(study: Study, jobs: int) -> str:
    """Returns what the figures of all tables are; `jobs` runs trained at once."""
    return _NOTE.format(over="folds" if len(study.folds) > 1 else "seeds", jobs=jobs)


def accuracy_table(results: Results, epsilon: float) -> TextTable:
    """A line for each arm: clean accuracy, the worst case with its interval, and each attack."""
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
        found = estimate_mean(worst)
        cells = [results.share(runs, CLEAN, 0.0), results.share(runs, WORST_CASE, epsilon)]
        cells.append(f"{100 * found.low:.1f} to {100 * found.high:.1f}")
        cells += [results.share(runs, name, epsilon) for name in shown]
        doubts = ", ".join(sorted({name for run in runs for name in _doubts(run)})) or "none"
        counts = [str(len(runs)), str(len(worst))]
        lines.append([results.title(arm), *counts, *cells, doubts])
    cascade = " + ".join(words(results.study.evaluation.get("cascade", ())))
    named = [cascade if name == CUSTOM else _title(name) for name in shown]
    titles = [f"ε = {results.radius(epsilon)}, %", "runs", "n", "clean", "worst case"]
    titles += ["its 95 % interval", *named, "doubtful checks"]
    return TextTable(titles, lines)


def cost_table(results: Results) -> TextTable:
    """A line for each arm: what its training took, and one forward pass of it."""
    lines = []
    for arm, runs in results.arms.items():
        cost, start = results.cost(arm), results.study.arms[arm].start
        counted = ["–"] * 5
        if cost is not None:
            counted = [f"{cost.gradients:.0f}", f"{cost.in_all:.0f}", str(cost.epochs)]
            counted += [f"{cost.gflops:.4g}", f"{cost.gflops / cost.dense_gflops:.2f}"]
        minutes = f"{statistics.mean(run.seconds for run in runs) / 60:.1f}"
        begins = "nothing" if start is None else results.title(start)
        lines.append([results.title(arm), begins, *counted[:3], minutes, *counted[3:]])
    titles = ["training", "starts from", "gradients", "with its start", "epochs", "minutes"]
    return TextTable([*titles, "GFLOPs", "÷ dense"], lines)


def mixture_table(results: Results) -> TextTable:
    """A line for each mixture: whether it is one, and what its router decides."""
    largest = max(results.study.epsilons)

    def figure(name: str) -> Callable[[Found], float | None]:
        return lambda run: (run.details["specialization"][name] or {}).get("value")

    def turned(run: Found) -> float | None:
        return getattr(run.row("pgd", largest), "flip_rate", None)

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
        f"PGD {results.radius(largest)} turns": lambda runs: _mean(runs, turned),
        "kind": lambda runs: ", ".join(
            sorted({run.details["specialization"]["kind"] for run in runs})
        ),
    }
    lines = [
        [results.title(arm), *(cell(runs) for cell in columns.values())]
        for arm, runs in results.arms.items()
        if all(run.details.get("specialization") for run in runs)
    ]
    return TextTable(["mixtures, clean %", *columns], lines, _MIXTURES)


def lipschitz_table(results: Results) -> TextTable:
    """A line for each arm: how much its logits and its router's weights change under PGD."""
    largest = max(results.study.epsilons)

    def of_model(run: Found) -> float | None:
        return getattr(run.row("pgd", largest), "lipschitz_model_mean", None)

    def of_router(run: Found) -> float | None:
        row = run.row("pgd", largest)
        several = row is not None and len(row.lipschitz_experts_mean or ()) > 1
        return row.lipschitz_router_weights_mean if several else None

    lines = [
        [results.title(arm), *(_mean(runs, of, 1, "{:.3g}") for of in (of_model, of_router))]
        for arm, runs in results.arms.items()
        if all(of_model(run) is not None for run in runs)
    ]
    titles = [f"Lipschitz under PGD {results.radius(largest)}", "L_Lip(F)", "L_Lip(r)"]
    return TextTable(titles, lines, _LIPSCHITZ)


def paired_table(results: Results, arm: str) -> TextTable:
    """A line for each other arm: by how many points `arm` is above it, example by example."""
    lines = []
    for other in results.arms:
        if other == arm:
            continue
        if not (pairs := results.pairs(arm, other)):
            continue
        looks = [(CLEAN, 0.0), *((WORST_CASE, epsilon) for epsilon in results.study.epsilons)]
        lines.append([results.title(other), *(points(difference(pairs, *look)) for look in looks)])
    worst = [f"worst case at {results.radius(epsilon)}" for epsilon in results.study.epsilons]
    return TextTable([f"{results.title(arm)} less …", "clean", *worst], lines)


def transfer_table(results: Results, runs: pathlib.Path) -> TextTable:
    """A line for each arm: right under what was made on all other arms, by attack."""
    rows = []
    blocks = {run.cell.block.name for own in results.arms.values() for run in own}
    for block in sorted(blocks):
        file = runs / block / TRANSFER / "transfer.json"
        if file.is_file():
            rows += read_json(file, list)
    black = [row for row in rows if row["source"] == "all others"]
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
    titles = [f"{_title(attack)} {results.radius(epsilon)}" for attack, epsilon in columns]
    kin = "An arm with near relatives, such as its own ablations, has the harder sources."
    return TextTable(["transfer from all other arms, %", *titles], lines if black else [], kin)


def draw(study: Study, found: Sequence[Found], path: pathlib.Path) -> None:
    """Draws the worst case of every arm, a panel for each architecture, with intervals."""
    shown = by_architecture(study, found, {})
    figure = new_figure(7.2, 0.7 + 0.32 * len(study.arms) * len(shown))
    for place, (architecture, results) in enumerate(shown.items()):
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
                label=f"worst case at {results.radius(epsilon)}" if epsilon else "clean",
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


def points(found: Estimate) -> str:
    """Returns a difference in points, with its interval."""
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
