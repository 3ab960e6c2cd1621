"""`jaxmoe sweep RUN`: robust accuracy over a grid of ε, or of an attack's own numbers."""

import argparse
import dataclasses
import itertools
import json
import pathlib
from typing import Any

from jaxmoe.commands.arguments import number
from jaxmoe.commands.evaluate import NUMBERS, evaluate, make_parser, open_run

_DESCRIPTION = """Runs attacks × ε on the test clips of a trained run and draws robust accuracy
against ε. ε is an argument of the compiled attack: each attack compiles once for the whole grid.

writes RUN/sweep/: results.json, results.csv, results.md, robust_accuracy.png, evaluation.json. ε is
1, 2, 4, 8 and 16 /255 where it is not given; the rest is then as in the run's config.

With numbers of the attacks (--lam, --gamma1, …) it runs their product on the validation clips
instead, so that an attack can be tuned without a look at the test split, prints the strongest
settings first and writes RUN/sweep/numbers.json."""

_EXAMPLE = """examples:
  jaxmoe sweep runs/ut_interaction_at_m --attacks pgd j-tlga --epsilons 1/255 2/255 4/255 8/255
  jaxmoe sweep runs/quickstart/at_m --attacks tla-m --epsilons 4/255 --lam 0 1e-5 1e-4 1e-3"""

_GRID = [level / 255 for level in (1, 2, 4, 8, 16)]
_SHOWN = 12  # settings of an attack at an ε on the terminal; all are in the file


def run(arguments: list[str]) -> None:
    """Sweeps the run that the arguments name; errors as in `evaluate`."""
    parser = make_parser("sweep", _DESCRIPTION, _EXAMPLE)
    parser.set_defaults(epsilons=_GRID)
    for name in NUMBERS:
        parser.add_argument(
            "--" + name.replace("_", "-"),
            dest=f"{name}_values",
            nargs="+",
            type=number,
            metavar="X",
            help=f"values of the attacks' {name}, on the validation clips",
        )
    options = parser.parse(arguments)
    if any(getattr(options, f"{name}_values") for name in NUMBERS):
        _sweep_numbers(options)
    else:
        evaluate(options, pathlib.Path(options.run) / "sweep")


def _sweep_numbers(options: argparse.Namespace) -> None:
    from jaxmoe.evaluation import Programs, evaluate_suite
    from jaxmoe.evaluation.metrics import accuracy
    from jaxmoe.experiment import evaluation_loader
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.reporting.results import write_text

    plan, trained = open_run(options)
    experiment, mixture, params = trained.experiment, trained.mixture, trained.params
    loader = evaluation_loader(trained.dataset.validation, experiment.data, plan.batch_size)
    programs = Programs(mixture, experiment.threat.norm, accuracy)
    given = {name: getattr(options, f"{name}_values") for name in NUMBERS}
    swept = {name: values for name, values in given.items() if values}
    grid = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    settings = [dataclasses.replace(plan.settings, **numbers) for numbers in grid]
    rows: list[dict[str, Any]] = []
    file = pathlib.Path(options.run) / "sweep" / "numbers.json"
    file.parent.mkdir(exist_ok=True)
    with make_progress() as progress:
        for numbers, with_numbers in zip(grid, settings, strict=True):
            progress.say(", ".join(f"{name} {value:g}" for name, value in numbers.items()))
            result = evaluate_suite(
                mixture,
                params,
                lambda: loader,
                attacks=plan.attacks,
                epsilons=plan.epsilons,
                settings=with_numbers,
                norm=experiment.threat.norm,
                seed=plan.seed,
                programs=programs,
                probe_batches=0,
            )
            rows += [
                {"attack": row.attack, "epsilon": row.epsilon, **numbers}
                | {"robust_accuracy": row.robust_accuracy, "n": row.n, "steps": row.steps}
                for row in result.rows
                if row.attack in plan.attacks
            ]
            rows.sort(key=lambda row: (row["attack"], row["epsilon"], row["robust_accuracy"]))
            write_text(file, json.dumps(rows, indent=1) + "\n")
    _print(rows, swept, experiment.threat.norm)
    print(f"written to {file}: validation clips, strongest first")


def _print(rows: list[dict[str, Any]], swept: dict[str, list[float]], norm: str) -> None:
    from jaxmoe.reporting.tables import format_epsilon

    for (attack, epsilon), group in itertools.groupby(
        rows, key=lambda row: (row["attack"], row["epsilon"])
    ):
        print(f"\n{attack}, ε = {format_epsilon(epsilon, norm)}")
        print("  ".join([*(f"{name:>14}" for name in swept), "robust accuracy %"]))
        for row in list(group)[:_SHOWN]:
            cells = [f"{row[name]:>14g}" for name in swept]
            print("  ".join([*cells, f"{100 * row['robust_accuracy']:>17.1f}"]))
