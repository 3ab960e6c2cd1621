"""`jaxmoe study FILE.py`: trains and judges every run of a study, and prints its tables."""

import pathlib
import shlex
import time
from typing import TYPE_CHECKING, Any

from jaxmoe.commands.arguments import (
    Parser,
    RunFailedError,
    Stopped,
    load_from,
    split_overrides,
)

if TYPE_CHECKING:
    from jaxmoe.config import Experiment, Study
    from jaxmoe.runs.study.cells import Cell
    from jaxmoe.runs.study.found import Found

_DESCRIPTION = """Trains every arm of a study in every block (architecture, fold, seed), judges each
by the study's attacks, and prints tables: clean and robust accuracy with intervals, what training
took, what the router decides, Lipschitz quotients, differences example by example, transfer.

FILE.py is a python file with study() -> jaxmoe.config.Study. Where the study says what training may
cost, each arm gets the epochs for it. --list shows them and runs nothing. Fields that are given
here hold for all runs: jaxmoe study configs/studies/ut_interaction.py --data.directory DIR.

It writes RUNS/BLOCK/ARM, a run with its evaluation, RUNS/BLOCK/ARM.log, study.md, study.csv and
study.png. The same command goes on where it was stopped. A run that fails is named, and the others
go on."""

_CELL = "--cell"  # for the processes that this command starts
_OURS = ("run.directory", "run.seed", "training.initialize_from")  # fields of every run


def run(arguments: list[str]) -> None:
    """Runs the study that the arguments name.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
      RunFailedError: a run failed; the line says how many, each was named before.
      Stopped: Ctrl-C, or SIGTERM.
    """
    parser = Parser("study", _DESCRIPTION)
    add = parser.add_argument
    add("file", metavar="FILE.py", help="with study()")
    add("--runs", metavar="DIR", help="the study's folder (runs/NAME of the file)")
    add("--arms", nargs="+", metavar="NAME", help="these arms alone, and what they start from")
    add("--jobs", type=int, default=1, metavar="N", help="runs at once, which share the cores (1)")
    add("--report", action="store_true", help="write report.html of the study into RUNS too")
    add("--list", action="store_true", help="show the runs and what they cost")
    add(_CELL, metavar="BLOCK/ARM", help="this run alone, in this process")
    own, fields = split_overrides(parser, arguments)
    options = parser.parse(own)
    if options.jobs < 1:
        raise ValueError(f"--jobs: {options.jobs} is not accepted; expected at least 1")

    from jaxmoe.config import Study

    study = load_from(options.file, "study", Study)
    runs = pathlib.Path(options.runs or f"runs/{pathlib.Path(options.file).stem}")
    for arm in options.arms or ():
        if arm not in study.arms:
            raise ValueError(f"--arms: {arm!r} is no arm; expected some of {', '.join(study.arms)}")
    if options.cell:
        _run_cell(study, runs, options.cell, fields)
        return
    _check_fields(study, fields)
    _Board(study, runs, options, fields).run()


def _check_fields(study: "Study", fields: list[str]) -> None:
    """Refuses fields that tell the runs of a study apart."""
    sets = (*study.architectures.values(), *study.folds.values())
    sets += tuple(arm.fields for arm in study.arms.values())
    apart = {*_OURS, *(name.replace("-", "_") for own in sets for name in own)}
    if study.gradients is not None:
        apart.add("training.epochs")
    for field in fields:
        name = field.partition("=")[0].removeprefix("--").replace("-", "_")
        if field.startswith("--") and name.removesuffix(".name") in apart:
            raise ValueError(f"{field}: not accepted; expected a field that all runs share")


class _Board:
    """The board of a study: its runs, those that are done and those that are to run."""

    def __init__(self, study: "Study", runs: pathlib.Path, options: Any, fields: list[str]):
        from jaxmoe.runs.folder import check_same_experiment
        from jaxmoe.runs.study.cells import cells, experiment_of
        from jaxmoe.runs.study.cost import costs

        self.study, self.runs, self.options, self.fields = study, runs, options, fields
        own = cells(study, options.arms)
        experiments = {cell: experiment_of(study, cell, runs, fields) for cell in own}
        _check_judging(study, list(experiments.values()), runs)
        _check_jobs(options.jobs)
        kinds = len({(cell.block.architecture, cell.arm) for cell in own})
        print(f"counting what an epoch costs, a few seconds for each of {kinds} runs", flush=True)
        self.costs = costs(study, experiments, _classes(experiments[own[0]]))
        self.epochs = {cell: self._epochs(cell) for cell in own}
        self.experiments = {
            cell: experiment_of(study, cell, runs, [*fields, *self.epochs[cell]]) for cell in own
        }
        for cell, experiment in self.experiments.items():
            try:
                check_same_experiment(runs / cell.name, experiment)
            except ValueError as error:  # --runs gives all folders at once
                raise ValueError(str(error).replace("run.directory", "--runs", 1)) from None

    def run(self) -> None:
        """Lists, or trains, judges and prints."""
        from jaxmoe.runs.study.found import is_trained
        from jaxmoe.runs.study.runner import run_all

        if self.options.list:
            self._list()
            return
        jobs = self._jobs()
        began = time.monotonic()
        print(f"{len(self.experiments)} runs; {self._left(jobs)}")

        def done(job: Any) -> None:
            seconds = time.monotonic() - began
            print(f"[{seconds:6.0f} s] {job.name}: {self._said(job.name)}", flush=True)

        try:
            failed = run_all(
                jobs,
                self.options.jobs,
                done=done,
                is_met=lambda name: is_trained(self.runs / name),
                say=print,
            )
        except KeyboardInterrupt:
            self._write()  # of the runs that are done
            raise Stopped(f"stopped; the same command goes on from {self.runs}") from None
        self._write()
        if failed:
            raise RunFailedError(f"{len(failed)} of {len(jobs)} failed: {', '.join(failed)}")

    def _left(self, jobs: dict[str, Any]) -> str:
        """Says what there is to do, and where to look while it is done."""
        from jaxmoe.runs.study.found import TRANSFER

        if not jobs:
            return "nothing is left to do"
        transfers = sum(name.endswith(f"/{TRANSFER}") for name in jobs)
        among = f" ({transfers} of them transfers)" if transfers else ""
        count = "1 job is" if len(jobs) == 1 else f"{len(jobs)} jobs are"
        return f"{count} left{among}; each has a log, {self.runs}/BLOCK/ARM.log"

    def _epochs(self, cell: "Cell") -> list[str]:
        """Returns the option that gives a run the epochs that its cost allows."""
        cost = self.costs[cell.block.architecture, cell.arm]
        return ["--training.epochs", str(cost.epochs)]

    def _jobs(self) -> dict[str, Any]:
        from jaxmoe.plugins import loaded
        from jaxmoe.runs.study.found import TRANSFER, is_transferred
        from jaxmoe.runs.study.runner import Job

        jobs: dict[str, Job] = {}

        def add(name: str, fields: list[str], **order: list[str]) -> None:
            given = [self.options.file, "--runs", str(self.runs), _CELL, name, *fields]
            given += [part for file in sorted(loaded()) for part in ("--plugin", file)]
            jobs[name] = Job(name, ["study", *given], self.runs / f"{name}.log", **order)

        for cell in self.experiments:
            if not self._is_done(cell):
                start = self.study.arms[cell.arm].start
                needs = [f"{cell.block.name}/{start}"] if start else []
                add(cell.name, [*self.fields, *self.epochs[cell]], needs=needs)
        if self.study.transfer:
            for block in dict.fromkeys(cell.block for cell in self.experiments):
                own = [cell for cell in self.experiments if cell.block == block]
                name = f"{block.name}/{TRANSFER}"
                if not is_transferred(self.study, self.runs / name, [cell.arm for cell in own]):
                    add(name, self.fields, after=[cell.name for cell in own])
        return jobs

    def _is_done(self, cell: "Cell") -> bool:
        from jaxmoe.runs.study.found import is_evaluated, is_trained

        folder = self.runs / cell.name
        attacks = _attacks_for(self.study, self.experiments[cell])
        return is_trained(folder) and is_evaluated(self.study, folder, attacks)

    def _said(self, name: str) -> str:
        from jaxmoe.commands.evaluation_report import headline
        from jaxmoe.reporting import read_results

        folder = self.runs / name
        return headline(read_results(folder)) if (folder / "results.json").is_file() else "done"

    def _list(self) -> None:
        from jaxmoe.runs.study.found import is_trained

        for cell in self.experiments:
            state = "trained" if is_trained(self.runs / cell.name) else "to be trained"
            state = "done" if self._is_done(cell) else state
            cost = self.costs[cell.block.architecture, cell.arm]
            print(
                f"{cell.name}: {state}, {cost.epochs} epochs, {cost.gradients:.0f} gradients, "
                f"{cost.in_all:.0f} with what comes before"
            )

    def _write(self) -> None:
        from jaxmoe.commands.study_report import CSV, MARKDOWN, PNG, write
        from jaxmoe.runs.study.found import read

        done = [cell for cell in self.experiments if self._is_done(cell)]
        found = [read(self.study, cell, self.runs) for cell in done]
        if found:
            print("\n" + write(self.study, found, self.costs, self.runs, self.options.jobs))
            print(f"written to {self.runs}: {MARKDOWN}, {CSV}, {PNG}")
            self._offer(found)

    def _offer(self, found: "list[Found]") -> None:
        """Writes the page of the study, or says how to see it where nothing is left to train."""
        from jaxmoe.commands import study_page

        jobs, command = self.options.jobs, self._command()
        if self.options.report:
            page = study_page.write(self.study, found, self.costs, self.runs, jobs, command)
            print(f"see it: {page}")
        elif len(found) == len(self.experiments):
            print(f"see it: {command}")

    def _command(self) -> str:
        """Returns the command that writes the page of this study."""
        from jaxmoe.plugins import loaded

        own = ["jaxmoe", "study", self.options.file, *self.fields, "--runs", str(self.runs)]
        own += ["--arms", *self.options.arms] if self.options.arms else []
        own += ["--jobs", str(self.options.jobs)] if self.options.jobs > 1 else []
        own += [part for file in sorted(loaded()) for part in ("--plugin", file)]
        return shlex.join([*own, "--report"])


def _check_judging(study: "Study", experiments: "list[Experiment]", runs: pathlib.Path) -> None:
    """Refuses attacks and options that `evaluate` and `transfer` would refuse after training."""
    from jaxmoe.attacks import canonical_name, find_attack
    from jaxmoe.commands import evaluate, transfer
    from jaxmoe.config import check_attacks
    from jaxmoe.evaluation.measures.measures import find_measures
    from jaxmoe.evaluation.transfer.transfer import transfer_name

    for attack in study.attacks:
        canonical_name(attack)
    for attack in study.transfer:
        transfer_name(attack)
    options = evaluate.evaluate_parser().parse(_evaluation(study, runs, list(study.attacks), []))
    cascade = options.cascade or []
    for attack in cascade:
        find_attack(attack)
    find_measures(options.measures or ())
    for experiment in experiments:
        check_attacks("attacks", [*study.attacks, *cascade], experiment.data)
    if study.transfer:
        transfer.make_parser().parse(_transfer(study, [runs, runs], runs, []))


def _check_jobs(jobs: int) -> None:
    import jax

    if jobs > 1 and jax.default_backend() != "cpu":
        raise ValueError(
            f"--jobs: {jobs} is not accepted; expected 1 on {jax.default_backend()}s: each process "
            "takes the memory of all"
        )


def _classes(experiment: "Experiment") -> int:
    """Returns how many classes there are; data whose number nobody knows is read for it."""
    known = experiment.data.expected_classes
    if known is not None:
        return known
    from jaxmoe.data import load_dataset

    return len(load_dataset(experiment.data).classes)


def _attacks_for(study: "Study", experiment: "Experiment") -> list[str]:
    """Returns the study's attacks that the model of an experiment has the parts for."""
    from jaxmoe.attacks import ATTACKS, canonical_name

    if experiment.mixture.experts > 1:
        return list(study.attacks)
    return [
        name
        for name in study.attacks
        if canonical_name(name) not in ATTACKS or not ATTACKS[canonical_name(name)].needs_route
    ]


def _run_cell(study: "Study", runs: pathlib.Path, name: str, fields: list[str]) -> None:
    """Trains and judges one run, or makes a block's transfer matrix."""
    from jaxmoe.commands import evaluate, transfer
    from jaxmoe.commands.train import train_and_tell
    from jaxmoe.runs.study.cells import cells, experiment_of
    from jaxmoe.runs.study.found import TRANSFER, is_evaluated, is_trained, mark_evaluated

    block, _, arm = name.partition("/")
    own = [cell for cell in cells(study) if cell.block.name == block]
    moved = _moved(fields)
    if arm == TRANSFER:
        folders = [runs / cell.name for cell in own if is_trained(runs / cell.name)]
        transfer.run(_transfer(study, folders, runs / name, moved))
        return
    cell = next((cell for cell in own if cell.arm == arm), None)
    if cell is None:
        raise ValueError(f"{_CELL}: {name} is no run of this study")
    experiment = experiment_of(study, cell, runs, fields)
    folder, attacks = runs / cell.name, _attacks_for(study, experiment)
    if not is_trained(folder):
        train_and_tell(experiment)
    if not is_evaluated(study, folder, attacks):
        evaluate.run(_evaluation(study, folder, attacks, moved))
        mark_evaluated(study, folder, attacks)


def _evaluation(
    study: "Study", folder: pathlib.Path, attacks: list[str], moved: list[str]
) -> list[str]:
    """Returns the arguments of `jaxmoe evaluate`."""
    from jaxmoe.runs.study.cells import words

    given = [str(folder), "--attacks", *attacks, "--epsilons", *map(repr, study.epsilons), *moved]
    for option, value in study.evaluation.items():
        if value is not False:
            given += [f"--{option.replace('_', '-')}", *([] if value is True else words(value))]
    return given


def _transfer(
    study: "Study", folders: list[pathlib.Path], output: pathlib.Path, moved: list[str]
) -> list[str]:
    """Returns the arguments of `jaxmoe transfer`, with the options that an evaluation shares."""
    from jaxmoe.commands import transfer
    from jaxmoe.runs.study.cells import words

    given = [*map(str, folders), "--attacks", *study.transfer]
    given += ["--epsilons", *map(repr, study.epsilons), "--output", str(output), *moved]
    known = transfer.make_parser()._option_string_actions
    for option, value in study.evaluation.items():
        name = f"--{option.replace('_', '-')}"
        if name in known and not isinstance(value, bool):
            given += [name, *words(value)]
    return given


def _moved(fields: list[str]) -> list[str]:
    """Returns the fields that say where the data is now."""
    found: list[str] = []
    for place, field in enumerate(fields):
        name, _, value = field.partition("=")
        if name in ("--data.directory", "--data.manifest"):
            found += [name, value or fields[place + 1]]
    return found
