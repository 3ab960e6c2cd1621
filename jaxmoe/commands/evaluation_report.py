"""The report of an evaluation: lines and tables on the terminal, and files, as it goes on."""

import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxmoe.evaluation.engine.rows import WORST_CASE, row_line
from jaxmoe.reporting import plot_margins, plot_robust_accuracy, write_results
from jaxmoe.reporting.details import DETAILS, FINISHED, write_details
from jaxmoe.reporting.results import JSON, write_examples, write_shown
from jaxmoe.reporting.tables import print_attacks, print_checks, print_flops
from jaxmoe.threat import format_epsilon

if TYPE_CHECKING:
    from jaxmoe.commands.evaluate import Plan
    from jaxmoe.evaluation import Check, Row, SuiteResult
    from jaxmoe.reporting.progress import BarProgress, PlainProgress
    from jaxmoe.runs.run import Trained


class EvaluationReport:
    """Tells of every row that is done and keeps it.

    Rows are in the files as soon as they are known. Where the folder holds an evaluation whose
    attacks all ran, that one stays until all of this one have.

    Attributes:
      finished: whether all attacks are through, printed and written.
      files: that were written, by their names.
    """

    def __init__(
        self,
        trained: "Trained",
        folder: pathlib.Path,
        plan: "Plan",
        progress: "PlainProgress | BarProgress",
        notes: tuple[str, ...] = (),
    ):
        """Begins a report.

        Args:
          trained: what is evaluated.
          folder: where files are written.
          plan: what runs.
          progress: where lines are printed.
          notes: what a reader of the table has to know, before those of the suite.
        """
        self._trained = trained
        self._folder = folder
        self._plan = plan
        self._progress = progress
        self._notes = notes
        self._spared = _holds_finished(folder)
        self.finished = False
        self.files: dict[str, None] = {}  # in the order in which they were written

    def keep(self, result: "SuiteResult") -> None:
        """Takes what was found so far: prints its last row, or all where the attacks are through.

        Files are written before anything else may fail.
        """
        row = result.rows[-1]
        if row.attack != WORST_CASE:
            self._progress.say(row_line(row))
            if not self._spared:
                self._write(result, finished=False)
            return
        self._write(result, finished=True)
        self._draw(result)
        self.finished = True
        with self._progress.paused():
            print_attacks(self._with_notes(result))

    def close(self, result: "SuiteResult", flops: Any) -> None:
        """Takes the checks of all rows and GFLOPs, prints them and writes them beside the rest."""
        if not self.finished:  # without an attack there is no worst case
            self._draw(result)
            print_attacks(self._with_notes(result))
        self._write(result, finished=True, flops=flops)
        print_checks(_all_checks(result))
        if flops is not None:
            print_flops(flops)
        print(f"written to {self._folder}: {', '.join(self.files)}")
        print(headline(result.rows))

    @property
    def stopped(self) -> str:
        """Where the rows are of an evaluation that stops now."""
        if self.finished:
            return f"all rows are in {self._folder / JSON}, without checks for masked gradients"
        if self.files:
            return f"the rows that are done are in {self._folder / JSON}"
        return "no result was written"

    def _with_notes(self, result: "SuiteResult") -> "SuiteResult":
        other = self._trained.other
        rows = result.rows
        if other is not None:
            rows = tuple(row._replace(test_set=other.digest) for row in rows)
        return result._replace(rows=rows, notes=(*result.notes, *self._notes))

    def _write(self, result: "SuiteResult", *, finished: bool, flops: Any = None) -> None:
        plan, other, result = self._plan, self._trained.other, self._with_notes(result)
        notes = result.notes
        if not finished:
            rows = 1 + len(plan.attacks) * len(dict.fromkeys(plan.epsilons))
            notes = *notes, f"Not finished: {len(result.rows)} of {rows} rows, and no worst case"
        written = write_results(
            result.rows,
            self._folder,
            checks=_all_checks(result),
            flops=flops,
            notes=notes,
            specialization=result.specialization,
            head=() if other is None else other.notes,
        )
        write_details(
            result._replace(notes=notes),
            self._folder,
            plan.run,
            settings=plan.settings,
            gradients=plan.gradients,
            checkpoint=plan.checkpoint,
            training_finished=self._trained.finished,
            part=plan.part,
            dual_weight=plan.dual_weight,
            other=other,
            finished=finished,
            flops=flops,
        )
        if finished and result.correct and not self.finished:
            written.append(write_examples(result, self._folder))
            written += write_shown(result, self._folder)
        self.files |= dict.fromkeys([*(file.name for file in written), DETAILS])

    def _draw(self, result: "SuiteResult") -> None:
        drawn, norm = [], self._plan.norm
        for kind in self._plan.figures:
            drawn.append(plot_robust_accuracy(result.rows, self._folder, kind))
            if result.margins:
                own = result.margins, result.label, self._trained.dataset.classes
                file, title = self._folder / f"margins.{kind}", f"n = {len(result.index)}, {norm}"
                drawn.append(plot_margins(*own, file, title, norm))
        self.files |= dict.fromkeys(file.name for file in drawn)


def headline(rows: Sequence["Row"]) -> str:
    """Returns the clean accuracy, and the worst case of each ε with the attack that did most."""
    clean = rows[0]
    dense = clean.mean_iou is not None
    said = [f"clean {_figure(clean, dense=dense)}"]
    for row in rows:
        if row.attack == WORST_CASE:
            attacks = [r for r in rows[1:] if r.epsilon <= row.epsilon and r.attack != WORST_CASE]
            most = min(attacks, key=lambda r: r.mean_iou if dense else r.robust_accuracy)
            radius = format_epsilon(row.epsilon, row.norm)
            figure = _figure(row, dense=dense)
            said.append(f"worst case at ε = {radius} {figure}, most by {most.attack}")
    return "; ".join(said)


def _figure(row: "Row", *, dense: bool) -> str:
    return f"{100 * row.mean_iou:.1f} % mIoU" if dense else f"{100 * row.robust_accuracy:.1f} %"


def _all_checks(result: "SuiteResult") -> "tuple[Check, ...]":
    return *result.checks, *result.model_checks


def _holds_finished(folder: pathlib.Path) -> bool:
    """Returns whether a folder has results of an evaluation whose attacks all ran."""
    if not (folder / JSON).is_file():
        return False
    try:
        return json.loads((folder / DETAILS).read_text(encoding="utf-8")).get(FINISHED, True)
    except (OSError, ValueError, AttributeError):  # of another command, or damaged
        return True
