"""`jaxmoe study FILE.py`: trains and judges every run of a study, and prints its tables."""

import pathlib
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
    from jaxmoe.config import Experiment
    from jaxmoe.config.study import Study
    from jaxmoe.runs.study.cells import Cell

_DESCRIPTION = """Trains every arm of a study in every block (architecture, fold, seed), judges each
by the study's attacks, and prints tables: clean and robust accuracy with intervals, what training
took, what the router decides, differences example by example, transfer.

FILE.py is a python file with study() -> jaxmoe.config.Study. Where the study says what training may
cost, each arm gets the epochs for it. --list shows them and runs nothing. Fields that are given
here hold for all runs: jaxmoe study configs/studies/ut_interaction.py --data.directory DIR.

It writes RUNS/BLOCK/ARM, a run with its evaluation, RUNS/BLOCK/ARM.log, study.md, study.csv and
study.png. The same command goes on where it was stopped. A run that fails is named, and the others
go on."""

_CELL = "--cell"  # for the processes that this command starts


def run(arguments: list[str]) -> None:
    """Runs the study that the arguments name.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
      RunFailedError: a run failed; the line says how many, each was named before.
      Stopped: Ctrl-C.
    """
    parser = Parser("study", _DESCRIPTION)
    add = parser.add_argument
    add("file", metavar="FILE.py", help="with study()")
    add("--runs", metavar="DIR", help="the study's folder (runs/NAME of the file)")
    add("--arms", nargs="+", metavar="NAME", help="these arms alone, and what they start from")
    add("--jobs", type=int, default=1, metavar="N", help="runs at once, which share the cores (1)")
    add("--list", action="store_true", help="show the runs and what they cost")
    add(_CELL, metavar="BLOCK/ARM", help="this run alone, in this process")
    own, fields = split_overrides(parser, arguments)
    options = parser.parse(own)
    if options.jobs < 1:
        raise ValueError(f"--jobs: {options.jobs} is not accepted; expected at least 1")

    from jaxmoe.config.study import Study

    study = load_from(options.file, "study", Study)
    runs = pathlib.Path(options.runs or f"runs/{pathlib.Path(options.file).stem}")
    for arm in options.arms or ():
        if arm not in study.arms:
            raise ValueError(f"--arms: {arm!r} is no arm; expected some of {', '.join(study.arms)}")
    if options.cell:
        _run_cell(study, runs, options.cell, fields)
        return
    _Board(study, runs, options, fields).run()


class _Board:
    """What is to run, and what is done."""

    def __init__(self, study: "Study", runs: pathlib.Path, options: Any, fields: list[str]):
        from jaxmoe.runs.folder import check_same_experiment
        from jaxmoe.runs.study.cells import cells, experiment_of
        from jaxmoe.runs.study.cost import costs

        self.study, self.runs, self.options, self.fields = study, runs, options, fields
        own = cells(study, options.arms)
        experiments = {cell: experiment_of(study, cell, runs, fields) for cell in own}
        self.costs = costs(study, experiments, _classes(experiments[own[0]]))
        self.epochs = {cell: self._epochs(cell) for cell in own}
        self.experiments = {
            cell: experiment_of(study, cell, runs, [*fields, *self.epochs[cell]]) for cell in own
        }
        for cell, experiment in self.experiments.items():
            check_same_experiment(runs / cell.name, experiment)

    def run(self) -> None:
        """Lists, or trains, judges and prints."""
        from jaxmoe.runs.study.runner import run_all

        if self.options.list:
            self._list()
            return
        jobs = self._jobs()
        began = time.monotonic()
        print(f"{len(self.experiments)} runs; {len(jobs)} jobs are left, transfers among them")

        def done(job: Any) -> None:
            print(
                f"[{time.monotonic() - began:6.0f} s] {job.name}: {self._said(job.name)}",
                flush=True,
            )

        try:
            failed = run_all(jobs, self.options.jobs, done, print)
        except KeyboardInterrupt:
            raise Stopped(f"stopped; the same command goes on from {self.runs}") from None
        self._write()
        if failed:
            raise RunFailedError(f"{len(failed)} of {len(jobs)} failed: {', '.join(failed)}")

    def _epochs(self, cell: "Cell") -> list[str]:
        """Returns the option that gives a run the epochs that its cost allows."""
        cost = self.costs.get((cell.block.architecture, cell.arm))
        return [] if cost is None else ["--training.epochs", str(cost.epochs)]

    def _jobs(self) -> dict[str, Any]:
        from jaxmoe.plugins import loaded
        from jaxmoe.runs.study.found import TRANSFER, is_evaluated, is_trained, is_transferred
        from jaxmoe.runs.study.runner import Job

        jobs: dict[str, Job] = {}

        def add(name: str, needs: list[str], epochs: list[str]) -> None:
            given = [self.options.file, "--runs", str(self.runs), _CELL, name, *self.fields]
            given += epochs
            given += [part for file in sorted(loaded()) for part in ("--plugin", file)]
            jobs[name] = Job(name, ["study", *given], self.runs / f"{name}.log", needs)

        for cell, experiment in self.experiments.items():
            folder, attacks = self.runs / cell.name, _attacks_for(self.study, experiment)
            if is_trained(folder) and is_evaluated(self.study, folder, attacks):
                continue
            start = self.study.arms[cell.arm].start
            needs = [f"{cell.block.name}/{start}"] if start else []
            add(cell.name, needs, self.epochs[cell])
        if self.study.transfer:
            for block in dict.fromkeys(cell.block for cell in self.experiments):
                own = [cell for cell in self.experiments if cell.block == block]
                name = f"{block.name}/{TRANSFER}"
                if not is_transferred(self.study, self.runs / name, [cell.arm for cell in own]):
                    add(name, [cell.name for cell in own], [])
        return jobs

    def _said(self, name: str) -> str:
        from jaxmoe.commands.evaluation_report import headline
        from jaxmoe.reporting import read_results

        folder = self.runs / name
        return headline(read_results(folder)) if (folder / "results.json").is_file() else "done"

    def _list(self) -> None:
        from jaxmoe.runs.study.found import is_evaluated, is_trained

        for cell, experiment in self.experiments.items():
            folder = self.runs / cell.name
            cost = self.costs.get((cell.block.architecture, cell.arm))
            state = "trained" if is_trained(folder) else "to be trained"
            if is_evaluated(self.study, folder, _attacks_for(self.study, experiment)):
                state = "done"
            said = "" if cost is None else f", {cost.epochs} epochs, {cost.gradients:.0f} gradients"
            print(f"{cell.name}: {state}{said}")

    def _write(self) -> None:
        from jaxmoe.commands.study_report import CSV, MARKDOWN, PNG, write
        from jaxmoe.runs.study.found import is_evaluated, read

        found = [
            read(cell, self.runs)
            for cell, experiment in self.experiments.items()
            if is_evaluated(self.study, self.runs / cell.name, _attacks_for(self.study, experiment))
        ]
        if found:
            print("\n" + write(self.study, found, self.costs, self.runs))
            print(f"written to {self.runs}: {MARKDOWN}, {CSV}, {PNG}")


def _classes(experiment: "Experiment") -> int:
    """Returns how many classes there are; data whose number nobody knows is read for it."""
    known = experiment.data.expected_classes
    if known is not None:
        return known
    from jaxmoe.data import load_dataset

    return len(load_dataset(experiment.data).classes)


def _attacks_for(study: "Study", experiment: "Experiment") -> list[str]:
    """Returns the study's attacks that the model of an experiment has the parts for."""
    from jaxmoe.attacks.registry import ATTACKS, canonical_name

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
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.run import train
    from jaxmoe.runs.study.cells import cells, experiment_of, words
    from jaxmoe.runs.study.found import TRANSFER, is_evaluated, is_trained, mark_evaluated

    block, _, arm = name.partition("/")
    own = [cell for cell in cells(study) if cell.block.name == block]
    if arm == TRANSFER:
        folders = [str(runs / cell.name) for cell in own if is_trained(runs / cell.name)]
        given = ["--attacks", *study.transfer, "--epsilons", *map(repr, study.epsilons)]
        transfer.run([*folders, *given, "--output", str(runs / name)])
        return
    cell = next((cell for cell in own if cell.arm == arm), None)
    if cell is None:
        raise ValueError(f"{_CELL}: {name} is no run of this study")
    experiment = experiment_of(study, cell, runs, fields)
    folder, attacks = runs / cell.name, _attacks_for(study, experiment)
    if not is_trained(folder):
        with make_progress() as progress:
            train(experiment, progress)
    if not is_evaluated(study, folder, attacks):
        given = ["--attacks", *attacks, "--epsilons", *map(repr, study.epsilons)]
        for option, value in study.evaluation.items():
            given += [f"--{option.replace('_', '-')}", *([] if value is True else words(value))]
        evaluate.run([str(folder), *given])
        mark_evaluated(study, folder, attacks)
