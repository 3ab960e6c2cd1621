"""`jaxmoe evaluate RUN`: attacks a trained run and writes its table."""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxmoe.commands import report
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
    number,
    split_part,
    take_dual_weight,
    take_part,
)

if TYPE_CHECKING:
    from jaxmoe.runs.run import Trained

_DESCRIPTION = """Attacks the test examples of a trained run, each attack at each ε, and prints
robust accuracy, routing, Lipschitz figures, GFLOPs and checks for masked gradients.

It writes into RUN, or into --output: results.json (a list of rows), results.csv, results.md,
robust_accuracy.png, margins.png (a curve for each class), evaluation.json (checks, GFLOPs,
compilations), examples.npz (prediction, confidence, route and size of change of each example) and
shown.npz (a few whole adversarial examples). RUN@expert0 is one of its experts alone, RUN@mean and
RUN@max are ensembles of all of them; they write into RUN/expert0 and so on.

Options that are not given are as in the run's config. Each row is printed and written as it ends.
Files of an evaluation that ran to its end are replaced when all attacks of this one have. The
checks come last.
The same command goes on with an evaluation that was stopped: its batches are in evaluation.journal.

`jaxmoe attacks` lists the attacks by the part that they attack, and cascades such as AutoAttack.
`jaxmoe transfer RUN --attacks universal universal-class` has universal perturbations."""

_EXAMPLE = """examples:
  jaxmoe evaluate runs/ut_interaction_at_m --attacks pgd tlga-r j-tlga --epsilons 4/255 8/255
  jaxmoe evaluate runs/ut_interaction_at_m --attacks auto-attack --gradient hard soft"""


JOURNAL = "evaluation.journal"
NUMBERS = ("alpha", "temporal_alpha", "decay", "lam", "gamma1", "gamma2")


class Plan(NamedTuple):
    """The plan of an evaluation."""

    attacks: list[str]
    epsilons: list[float]
    settings: Any  # AttackSettings, imported late
    gradients: list[str]
    seed: int
    batch_size: int
    checkpoint: str
    norm: str
    dual_weight: float | None  # of a dual model
    looked_at: str | None  # which test examples, where not all
    measures: tuple[str, ...] = ()  # names of `evaluation.MEASURES`
    figures: tuple[str, ...] = ("png",)  # formats
    cascades: Mapping[str, Any] = MappingProxyType({})  # the one of --cascade, by its name
    run: pathlib.Path | None = None  # its folder
    part: str | None = None  # of the mixture, in its place


def run(arguments: list[str]) -> None:
    """Evaluates the run that the arguments name.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
      RunFailedError: numbers that were not finite, or an attack that left its ball.
      Stopped: Ctrl-C.
    """
    options = evaluate_parser().parse(arguments)
    folder, part = split_part(options.run)
    evaluate(options, pathlib.Path(options.output or folder / (part or "")))


def evaluate_parser() -> Parser:
    """Returns the command's parser."""
    parser = make_parser("evaluate", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("--output", metavar="DIR", help="where the files are written (RUN)")
    for name in NUMBERS:
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=number, metavar="X", help=f"the attacks' {name}")
    parser.add_argument(
        "--gradient",
        nargs="+",
        choices=("hard", "soft", "straight_through"),
        help="what attacks on the whole mixture see of its gradient, joint ones included; with "
        "several a robust example survives all",
    )
    parser.add_argument(
        "--cascade",
        nargs="+",
        metavar="NAME",
        help="attacks of the cascade auto-attack-custom, with the numbers given here",
    )
    parser.add_argument(
        "--figures",
        nargs="+",
        choices=("png", "svg", "pdf"),
        default=["png"],
        help="formats of the figures (png)",
    )
    parser.add_argument(
        "--measures",
        nargs="+",
        metavar="NAME",
        help="more columns, by name: confidence, label-probability, changed, trust, or a plugin's",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="attack N test examples, drawn by class, the same ones every time (all)",
    )
    parser.add_argument(
        "--save-examples",
        action="store_true",
        help="keep the adversarial examples, examples/ATTACK-NORM-EPSILON/*.npz",
    )
    parser.add_argument(
        "--no-checks", action="store_true", help="leave out the checks for masked gradients"
    )
    parser.add_argument(
        "--report", action="store_true", help="write report.html too, as jaxmoe report does"
    )
    return parser


def make_parser(command: str, description: str, example: str) -> Parser:
    """The options that `evaluate` and `sweep` share."""
    parser = Parser(command, description, epilog=example)
    add = parser.add_argument
    add("run", metavar="RUN", help="folder of a trained run, or RUN@expert0, RUN@mean, RUN@max")
    add_attack_options(parser, "pgd tlga-r j-tlga")
    add("--batch-size", type=int, help="examples at once; accuracies do not depend on it")
    add("--checkpoint", choices=("best", "latest", "average"), help="which params")
    add("--dual-weight", type=number, metavar="α", help="of a dual model, for the run's own")
    return parser


def evaluate(options: argparse.Namespace, output: pathlib.Path) -> None:
    """Runs the suite that `options` describe and writes its files into `output`."""
    plan, trained = open_run(options)
    wanted = {"save": options.save_examples, "checks": not options.no_checks}
    with hold_output(output) as folder:
        _run_and_write(trained, folder, plan, **wanted)
        _tell_loggers(trained, folder, pathlib.Path(options.run))
        report.offer([folder], written=options.report)


def open_run(options: argparse.Namespace) -> "tuple[Plan, Trained]":
    """Returns the plan and the run of the options, after every check that needs no compiling.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
    """
    from jaxmoe.attacks import CASCADES, canonical_name, find_attack
    from jaxmoe.attacks.cascade import CUSTOM, custom
    from jaxmoe.config import check_attacks
    from jaxmoe.evaluation.measures.measures import find_measures
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.build import cropped, evaluation_attacks, evaluation_settings
    from jaxmoe.runs.folder import read_experiment
    from jaxmoe.runs.run import load

    folder, part = split_part(options.run)
    experiment = read_experiment(folder)
    defaults = experiment.evaluation
    attacks, cascades = options.attacks or evaluation_attacks(experiment), {}
    if cascade := getattr(options, "cascade", None):
        for name in cascade:
            find_attack(name)  # a cascade of cascades is refused
        cascades[CUSTOM] = custom([canonical_name(name) for name in cascade])
        attacks = list(options.attacks or ())
    attacks = [*map(canonical_name, attacks), *cascades]
    named = [name for name in attacks if name not in cascades]
    check_attacks("attacks", [*named, *(cascade or ())], experiment.data)
    epsilons = options.epsilons or list(defaults.epsilons)
    batch_size = defaults.batch_size if options.batch_size is None else options.batch_size
    seed = defaults.seed if options.seed is None else options.seed
    norm = chosen_norm(options, experiment.threat.norm)
    check_attack_options(epsilons, norm, seed, batch_size=batch_size)
    given = {name: getattr(options, name, None) for name in (*COUNTS, *NUMBERS)}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(evaluation_settings(experiment), **changes)

    measures = find_measures(getattr(options, "measures", None) or defaults.measures or ())
    figures = tuple(getattr(options, "figures", ("png",)))
    checkpoint = options.checkpoint or defaults.checkpoint
    gradients = getattr(options, "gradient", None) or [settings.gradient]
    own = [name for name in attacks if name in CASCADES]
    ignored = [f"--{name}" for name in COUNTS if given[name] is not None]
    with make_progress() as progress:
        trained = load(
            folder, options.checkpoint, data_progress=progress.data, **data_fields(options)
        )
        trained = take_part(take_dual_weight(trained, options.dual_weight, part), part)
        for note in trained.other.notes if trained.other else ():
            progress.say(note)
        trained, looked_at = _take_examples(trained, getattr(options, "limit", None))
        if looked_at:
            progress.say(looked_at)
        if note := cropped(trained.dataset.test, trained.experiment.data):
            progress.say(note)
        if note := note_on_state(folder, trained, checkpoint):
            progress.say(note)
        if own and ignored:
            progress.say(
                f"{' and '.join(own)}: with AutoAttack's own numbers; {' '.join(ignored)} for "
                "other attacks alone (--cascade makes one with your numbers)"
            )
    alpha = None if part else trained.experiment.mixture.dual_weight
    numbers = settings, gradients, seed, batch_size, checkpoint, norm, alpha
    own = *numbers, looked_at, measures, figures, cascades, folder, part
    return Plan(attacks, epsilons, *own), trained


def _take_examples(trained: "Trained", count: int | None) -> "tuple[Trained, str | None]":
    """The run with so many of its test examples, and which they are in words."""
    if count is None:
        return trained, None
    from jaxmoe.evaluation.engine.part import describe_part, take_part_of

    whole = trained.dataset.test
    if not 1 <= count <= len(whole):
        raise ValueError(f"--limit: {count}; expected 1 to {len(whole)}, all test examples")
    dataset = dataclasses.replace(trained.dataset, test=take_part_of(whole, count))
    looked_at = f"test examples: {describe_part(count, len(whole), dense=whole.dense)}"
    return trained._replace(dataset=dataset), looked_at


def _run_and_write(
    trained: "Trained", output: pathlib.Path, plan: Plan, *, save: bool, checks: bool
) -> None:
    from jaxmoe.commands.evaluation_report import EvaluationReport
    from jaxmoe.evaluation import NonFiniteError, ThreatViolation, evaluate_suite
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.build import cropped, evaluation_loader

    data = trained.experiment.data
    loader = evaluation_loader(trained.dataset.test, data, plan.batch_size)
    alpha = None if plan.dual_weight is None else f"dual model, α = {plan.dual_weight:g}"
    crop = cropped(trained.dataset.test, data)
    notes = tuple(filter(None, (alpha, plan.looked_at, crop)))
    with make_progress() as progress:
        report = EvaluationReport(trained, output, plan, progress, notes)
        try:
            result = evaluate_suite(
                trained.mixture,
                trained.params,
                lambda: loader,
                attacks=plan.attacks,
                epsilons=plan.epsilons,
                settings=plan.settings,
                gradients=plan.gradients,
                norm=plan.norm,
                seed=plan.seed,
                progress=progress.evaluation,
                say=progress.say,
                journal=output / JOURNAL,
                examples=output / "examples" if save else None,
                checks=checks,
                keep=report.keep,
                columns=trained.dataset.columns(trained.dataset.test),
                measures=plan.measures,
                cascades=plan.cascades,
            )
            progress.evaluation(1, 1, "GFLOPs of the mixture")
            flops = _count_flops(trained, plan.batch_size)
        except (NonFiniteError, ThreatViolation) as error:
            raise RunFailedError(str(error)) from None
        except KeyboardInterrupt:
            where = output / JOURNAL
            raise Stopped(
                f"stopped; the same command goes on from {where}; {report.stopped}"
            ) from None
    report.close(result, flops)
    (output / JOURNAL).unlink(missing_ok=True)


def _tell_loggers(trained: "Trained", folder: pathlib.Path, run: pathlib.Path) -> None:
    """Tells the loggers of a run of its evaluation.

    Nobody is told of an evaluation that lies elsewhere, nor while the run trains on: its own
    process tells its loggers then.
    """
    from jaxmoe.reporting.logged import log_evaluation

    names = trained.experiment.run.logger
    if not names or folder.resolve() != run.resolve() or trained.state == "training":
        return
    try:
        log_evaluation(folder, names)
    except Exception as error:  # a logger has errors of its own
        # The attacks have run: their table does not wait for a logger.
        print(f"no logger was told: {error}", file=sys.stderr)


def _count_flops(trained: "Trained", batch_size: int) -> Any:
    """GFLOPs of the sparse mixture against the dense one; None where it is dense, or has a head."""
    from jaxmoe.evaluation.measures.flops import mixture_flops
    from jaxmoe.mixture import Mixture, no_head

    data, mixture = trained.experiment.data, trained.mixture
    if not isinstance(mixture, Mixture) or mixture.top_k == mixture.num_experts:
        return None
    if mixture.head is not no_head:
        return None
    block_size = trained.experiment.mixture.block_size
    try:
        return mixture_flops(mixture, trained.params, data.shape, batch_size, block_size)
    except ValueError as error:
        # The attacks have run: their table does not wait for a count that another XLA hides.
        print(f"GFLOPs were not counted: {error}", file=sys.stderr)
        return None
