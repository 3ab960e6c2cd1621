"""`jaxmoe sweep RUN`: robust accuracy over a grid of ε and of the attacks' own numbers."""

import argparse
import itertools
import json
import pathlib
import sys
from typing import TYPE_CHECKING

from jaxmoe.commands.arguments import RunFailedError, Stopped, hold_output, number, split_part
from jaxmoe.commands.evaluate import JOURNAL, NUMBERS, Plan, make_parser, open_run

if TYPE_CHECKING:
    from jaxmoe.evaluation import Grid, GridResult
    from jaxmoe.runs.run import Trained

_DESCRIPTION = """Runs attacks x ε x numbers of the attacks on a trained run, draws robust accuracy
against ε. All settings that fit the memory run at once: each attack compiles once for the grid.

writes RUN/sweep/: sweep.json (settings, and under `rows` attack, epsilon, each number,
robust_accuracy, n, seed, steps, restarts, gradient_evaluations) and sweep.png. ε is 1, 2, 4, 8 and
16 /255 where it is not given; the rest is then as in the run's config. The same command goes on
where it was stopped.

With numbers of the attacks (--lambdas, --gamma1s, …) it looks at the validation examples, so that
an attack can be tuned without a look at the test split, and prints the strongest settings first."""

_EXAMPLE = """examples:
  jaxmoe sweep runs/ut_interaction_at_m --attacks pgd j-tlga --epsilons 1/255 2/255 4/255 8/255
  jaxmoe sweep runs/quickstart/at_m --attacks tla-m --epsilons 4/255 --lambdas 0 1e-5 1e-4 1e-3"""

_GRID = [level / 255 for level in (1, 2, 4, 8, 16)]
_SHOWN = 12  # settings of an attack at an ε on the terminal; all are in the file


def run(arguments: list[str]) -> None:
    """Sweeps the run that the arguments name; errors as in `evaluate`."""
    parser = make_parser("sweep", _DESCRIPTION, _EXAMPLE)
    for name in NUMBERS:
        plural = "lambda" if name == "lam" else name
        parser.add_argument(
            f"--{plural.replace('_', '-')}s",
            f"--{name.replace('_', '-')}",
            dest=f"{name}_values",
            nargs="+",
            type=number,
            metavar="X",
            help=f"values of the attacks' {name}, on the validation examples",
        )
    parser.add_argument(
        "--memory",
        type=float,
        metavar="GIB",
        help="what a program may take; half of the device's memory where it is not given",
    )
    parser.add_argument("--output", metavar="DIR", help="where the files are written (RUN/sweep)")
    options = parser.parse(arguments)
    if options.norm and not options.epsilons:
        raise ValueError(f"--norm: {options.norm} needs --epsilons")
    options.epsilons = options.epsilons or _GRID
    if options.memory is not None and not options.memory > 0:
        raise ValueError(f"--memory: {options.memory:g} is not accepted; expected GiB above 0")
    folder, part = split_part(options.run)
    output = pathlib.Path(options.output or folder / (part or "") / "sweep")
    try:
        _sweep(options, output)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; the same command goes on from {output / JOURNAL}") from None


def _sweep(options: argparse.Namespace, output: pathlib.Path) -> None:
    from jaxmoe.attacks import find_attack
    from jaxmoe.evaluation import Grid

    given = {name: getattr(options, f"{name}_values") for name in NUMBERS}
    values = {name: tuple(dict.fromkeys(found)) for name, found in given.items() if found}
    grid = Grid(tuple(dict.fromkeys(options.epsilons)), values)
    plan, trained = open_run(options)
    for name in plan.attacks:
        find_attack(name)
    if values and trained.other is not None:
        raise ValueError(
            "--data.directory: numbers of attacks are tuned on the validation examples of the "
            f"run, and these are another test set ({trained.other.directory}); expected --epsilons "
            "alone"
        )
    with hold_output(output) as output:
        _run_and_write(trained, output, plan, grid, options)


def _run_and_write(
    trained: "Trained",
    output: pathlib.Path,
    plan: Plan,
    grid: "Grid",
    options: argparse.Namespace,
) -> None:
    from jaxmoe.evaluation import NonFiniteError, ThreatViolation, sweep_grid
    from jaxmoe.files import write_text
    from jaxmoe.reporting import plot_curves
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.build import evaluation_loader

    split = "validation" if grid.values else "test"
    clips = trained.dataset.splits[split]
    loader = evaluation_loader(clips, trained.experiment.data, plan.batch_size)
    try:
        with make_progress() as progress:
            result = sweep_grid(
                trained.mixture,
                trained.params,
                lambda: loader,
                attacks=plan.attacks,
                grid=grid,
                settings=plan.settings,
                norm=plan.norm,
                seed=plan.seed,
                memory=options.memory and int(options.memory * 2**30),
                journal=output / JOURNAL,
                progress=progress.evaluation,
                say=progress.say,
            )
    except (NonFiniteError, ThreatViolation) as error:
        raise RunFailedError(str(error)) from None
    rows = [row._asdict() | row.numbers for row in result.rows]
    for row in rows:
        del row["numbers"]
    record = {
        "command": sys.argv,
        "split": split,
        "test_set": trained.other and trained.other._asdict(),
        "norm": plan.norm,
        "clean_accuracy": result.clean_accuracy,
        "compilations": result.compilations,
        "points_at_once": result.chunks,
        "checks": [check._asdict() for check in result.model_checks],
        "rows": rows,
    }
    write_text(output / "sweep.json", json.dumps(record, indent=1) + "\n")
    name = pathlib.Path(options.run).resolve().name
    title = f"{name}: {rows[0]['n']} {split} examples, seed {plan.seed}"
    if trained.other is not None:
        title += f", not the run's own ({trained.other.digest})"
    if grid.values:
        title += ", the strongest setting of each attack"
    plot_curves(result.curves(), result.clean_accuracy, output / "sweep.png", title, record["norm"])
    (output / JOURNAL).unlink(missing_ok=True)
    _print(result, list(grid.values), record["norm"])
    print(f"written to {output}: sweep.json, sweep.png; {rows[0]['n']} {split} examples")


def _print(result: "GridResult", names: list[str], norm: str) -> None:
    from jaxmoe.threat import format_epsilon

    print(f"clean accuracy {result.clean_accuracy:.1%}")
    for (attack, epsilon), group in itertools.groupby(
        result.rows, key=lambda row: (row.attack, row.epsilon)
    ):
        strongest = sorted(group, key=lambda row: row.robust_accuracy)
        if not names:
            robust = f"{100 * strongest[0].robust_accuracy:.1f}"
            print(f"{attack:<18} ε = {format_epsilon(epsilon, norm):<8} {robust:>6} %")
            continue
        print(f"\n{attack}, ε = {format_epsilon(epsilon, norm)}")
        print("  ".join([*(f"{name:>14}" for name in names), "robust accuracy %"]))
        for row in strongest[:_SHOWN]:
            cells = [f"{row.numbers[name]:>14g}" for name in names]
            print("  ".join([*cells, f"{100 * row.robust_accuracy:>17.1f}"]))
