"""`jaxmoe transfer RUN RUN …`: attacks made on each run, scored on every other."""

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxmoe.commands.arguments import (
    COUNTS,
    Parser,
    RunFailedError,
    Stopped,
    add_attack_options,
    check_attack_options,
    chosen_norm,
    data_fields,
    hold_output,
    note_on_state,
    split_part,
    take_part,
)

if TYPE_CHECKING:
    from jaxmoe.config import Experiment
    from jaxmoe.runs.run import Trained

_DESCRIPTION = """Does an attack on one model also break another? Makes adversarial test examples
on each of the runs and scores them on all of them. Where source and target are the same run, the
attack is the white-box one of `jaxmoe evaluate`; elsewhere it is a black box that had a substitute.

Prints a table for each attack and ε: a line for the run that they were made on, a column for the
run that was scored, robust accuracy in %. "all others" counts an example if it is right under the
attacks of every run but the scored one: what is left of a run whose attacker has all the others.

Beside the attacks of `evaluate` there are two that see no test example at all. They are made on
the source's training examples, then added to every test example: `universal` is one perturbation
for all, `universal-class` one for each class, picked by the true label.

All runs must have the same test examples, frames and size; --data.directory may name others of
their classes for all of them. What is not given is as in the first run's config.

writes transfer.json and transfer.csv (a row for each source, target, attack and ε), transfer.md
(the tables) and transfer.png (them as heat maps) into --output. The same command goes on from where
it was stopped; its batches are in transfer.journal until the files are written."""

_EXAMPLE = """example:
  jaxmoe transfer runs/quickstart/* --attacks pgd j-tlga universal --epsilons 4/255"""

JOURNAL = "transfer.journal"
_EPOCHS = 10
# Two clips of one video are the same input only where all of these are.
_SHARED = ("frames", "height", "width", "stride", "resolution")


class Subject(NamedTuple):
    """A run, or a part of its mixture."""

    trained: "Trained"
    part: str | None


class Plan(NamedTuple):
    """The plan of a transfer matrix."""

    attacks: list[str]
    epsilons: list[float]
    settings: Any  # AttackSettings, imported late
    norm: str
    seed: int
    batch_size: int
    epochs: int


def run(arguments: list[str]) -> None:
    """Makes the matrix of the runs that the arguments name.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
      RunFailedError: numbers that were not finite, or an attack that left its ball.
      Stopped: Ctrl-C.
    """
    options = make_parser().parse(arguments)
    runs = [split_part(run) for run in options.runs]
    folders = [folder for folder, _ in runs]
    names = unique_names([pathlib.Path(run) for run in options.runs])
    output = pathlib.Path(options.output) if options.output else _beside(folders)
    plan, trained = _open(options, folders)
    subjects = [Subject(found, part) for found, (_, part) in zip(trained, runs, strict=True)]
    try:
        _run_and_write(dict(zip(names, subjects, strict=True)), output, plan)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; the same command goes on from {output / JOURNAL}") from None


def make_parser() -> Parser:
    """Returns the command's parser."""
    parser = Parser("transfer", _DESCRIPTION, epilog=_EXAMPLE)
    add = parser.add_argument
    add(
        "runs",
        metavar="RUN",
        nargs="+",
        help="folders of trained runs, or parts of them as for evaluate: RUN@expert0, RUN@mean, "
        "RUN@max; of one alone, universal attacks on itself",
    )
    add_attack_options(parser, "pgd tlga-r universal")
    add("--output", metavar="DIR", help="where the files are written (transfer, beside the runs)")
    add(
        "--epochs",
        type=int,
        default=_EPOCHS,
        help=f"passes of universal attacks over the training examples ({_EPOCHS})",
    )
    add("--batch-size", type=int, help="examples at once; only universal attacks depend on it")
    add(
        "--checkpoint",
        choices=("best", "latest", "average"),
        help="which params (as each run's config says)",
    )
    return parser


def unique_names(folders: Sequence[pathlib.Path]) -> list[str]:
    """The last parts of the folders' paths, as many as it takes to tell them apart.

    Raises:
      ValueError: a folder that is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"RUN: {path} is given {paths.count(path)} times; expected once")
    parts = 1
    while True:
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
        parts += 1


def _beside(folders: Sequence[pathlib.Path]) -> pathlib.Path:
    """`transfer` in the folder that holds all runs."""
    common = os.path.commonpath([folder.resolve().parent for folder in folders])
    return pathlib.Path(os.path.relpath(common)) / "transfer"


def _open(
    options: argparse.Namespace, folders: Sequence[pathlib.Path]
) -> "tuple[Plan, list[Trained]]":
    """Returns the plan of the options and the runs, after every check that needs no compiling."""
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.build import cropped
    from jaxmoe.runs.folder import describe_splits, read_experiment
    from jaxmoe.runs.run import load

    experiments = [read_experiment(folder) for folder in folders]
    plan = _plan(options, experiments, folders)
    fields = data_fields(options)
    trained, opened = [], {}
    with make_progress() as progress:
        for folder in folders:
            if folder not in opened:
                opened[folder] = load(
                    folder, options.checkpoint, data_progress=progress.data, **fields
                )
                own = opened[folder].experiment.evaluation.checkpoint
                if note := note_on_state(folder, opened[folder], options.checkpoint or own):
                    progress.say(note)
            trained.append(opened[folder])
            tested = [describe_splits(found.dataset)["test"] for found in (trained[0], trained[-1])]
            if tested[0] != tested[1] or trained[0].dataset.classes != trained[-1].dataset.classes:
                raise ValueError(
                    f"RUN: {folder} has other test examples than {folders[0]}; expected runs on "
                    "the same test split"
                )
        for note in trained[0].other.notes if trained[0].other else ():
            progress.say(note)
        if note := cropped(trained[0].dataset.test, trained[0].experiment.data):
            progress.say(note)
    return plan, trained


def _plan(
    options: argparse.Namespace,
    experiments: "Sequence[Experiment]",
    folders: Sequence[pathlib.Path],
) -> Plan:
    from jaxmoe.config import check_attacks
    from jaxmoe.evaluation.transfer.transfer import transfer_name
    from jaxmoe.evaluation.transfer.universal import UNIVERSAL
    from jaxmoe.runs.build import evaluation_attacks, evaluation_settings

    first, defaults = experiments[0], experiments[0].evaluation
    attacks = [transfer_name(name) for name in options.attacks or evaluation_attacks(first)]
    own = [name for name in attacks if name not in UNIVERSAL]
    check_attacks("attacks", own, first.data)
    epsilons = list(options.epsilons or defaults.epsilons)
    batch_size = defaults.batch_size if options.batch_size is None else options.batch_size
    seed = defaults.seed if options.seed is None else options.seed
    for name in _SHARED:
        values = [getattr(experiment.data, name) for experiment in experiments]
        _check_alike(f"data.{name}", values, folders, "expected runs on the same input shape")
    if options.norm is None:
        norms = [experiment.threat.norm for experiment in experiments]
        _check_alike("threat.norm", norms, folders, "choose one with --norm")
    given = {name: getattr(options, name) for name in COUNTS}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(evaluation_settings(first), **changes)
    norm = chosen_norm(options, first.threat.norm)
    check_attack_options(epsilons, norm, seed, batch_size=batch_size, epochs=options.epochs)
    return Plan(attacks, epsilons, settings, norm, seed, batch_size, options.epochs)


def _check_alike(
    field: str, values: Sequence[Any], folders: Sequence[pathlib.Path], advice: str
) -> None:
    for folder, value in zip(folders, values, strict=True):
        if value != values[0]:
            raise ValueError(
                f"RUN: {folder} has {field} = {value}, {folders[0]} has {values[0]}; {advice}"
            )


def _run_and_write(runs: dict[str, Subject], output: pathlib.Path, plan: Plan) -> None:
    from jaxmoe.evaluation import NonFiniteError, ThreatViolation, transfer_matrix
    from jaxmoe.evaluation.transfer.transfer_result import flags_of_targets
    from jaxmoe.evaluation.transfer.universal import UNIVERSAL
    from jaxmoe.reporting import plot_transfer, print_transfer, write_transfer
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.build import evaluation_loader

    def loader(name: str, split: str) -> Any:
        found = runs[name].trained
        source = found.dataset.splits[split]
        return evaluation_loader(source, found.experiment.data, plan.batch_size)

    models = _models(runs)
    test = loader(next(iter(runs)), "test")
    first = next(iter(runs.values())).trained
    training = {}
    if any(name in UNIVERSAL for name in plan.attacks):
        if not len(first.dataset.train):
            raise ValueError("--attacks: universal ones need the training examples: not there")
        training = {name: loader(name, "train") for name in runs}
    with hold_output(output) as output:
        try:
            with make_progress() as progress:
                result = transfer_matrix(
                    models,
                    models,
                    lambda: test,
                    attacks=plan.attacks,
                    epsilons=plan.epsilons,
                    settings=plan.settings,
                    norm=plan.norm,
                    seed=plan.seed,
                    training_batches={name: lambda name=name: training[name] for name in training},
                    epochs=plan.epochs,
                    journal=output / JOURNAL,
                    progress=progress.evaluation,
                    say=progress.say,
                )
        except (NonFiniteError, ThreatViolation) as error:
            raise RunFailedError(str(error)) from None
        rows, other = result.rows, first.other
        if other is not None:
            rows = tuple(row._replace(test_set=other.digest) for row in rows)
        flags = [line.removesuffix(".") for line in flags_of_targets(result.model_checks)]
        notes = (*(() if other is None else other.notes), *flags)
        files = write_transfer(rows, output, notes)
        files.append(plot_transfer(rows, output / "transfer.png"))
        (output / JOURNAL).unlink(missing_ok=True)
        print_transfer(rows)
        print(f"written to {output}: {', '.join(file.name for file in files)}")


def _models(runs: dict[str, Subject]) -> dict[str, tuple[Any, Any]]:
    """Model and params by name; runs of one architecture share the model and its programs."""
    mixtures: dict[Any, Any] = {}
    models = {}
    for name, (trained, part) in runs.items():
        e = trained.experiment
        # How a mixture was trained is no part of what it computes.
        mixture = dataclasses.replace(
            e.mixture, balance="switch", balance_weight=0.0, router_noise=0.0, dropped_experts=0
        )
        architecture = (e.expert, e.router, mixture, part)
        found = take_part(trained, part)
        models[name] = mixtures.setdefault(architecture, found.mixture), found.params
    return models
