"""The suite as tables in a terminal; where output is piped, plain lines without colour."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

from rich.console import Console
from rich.table import Table

from jaxmoe.evaluation.engine.rows import (
    CLEAN,
    WORST_CASE,
    Check,
    Row,
    StageRow,
    SuiteResult,
    limits,
)
from jaxmoe.evaluation.engine.verdict import verdict_line
from jaxmoe.evaluation.measures.flops import MixtureFlops
from jaxmoe.evaluation.measures.measures import MEASURES
from jaxmoe.evaluation.measures.specialization import Specialization, specialization_sentence
from jaxmoe.threat import format_epsilon


class Column(NamedTuple):
    """A column of the main table."""

    title: str
    cell: Callable[[Row], str]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _interval(row: Row) -> str:
    between = limits(row)
    return "-" if between is None else " to ".join(f"{100 * end:.1f}" for end in between)


_OF_IOU = "95 % interval of mIoU"

COLUMNS = (
    Column("attack", lambda row: row.attack),
    Column("ε", lambda row: format_epsilon(row.epsilon, row.norm)),
    Column("robust accuracy %", lambda row: _percent(row.robust_accuracy)),
    Column("95 % interval", lambda row: _interval(row)),
    Column("n", lambda row: str(row.n)),
    Column("flip rate %", lambda row: _percent(row.flip_rate)),
    Column("gradient evaluations", lambda row: f"{row.gradient_evaluations:.0f}"),
    Column("seconds", lambda row: f"{row.seconds:.2f}"),
)


# Of dense labels the accuracy is that of pixels, and the field's own figure stands beside it.
_DENSE = {
    "robust accuracy %": (
        Column("mIoU %", lambda row: _percent(row.mean_iou)),
        Column(_OF_IOU, _interval),
        Column("robust pixel accuracy %", lambda row: _percent(row.robust_accuracy)),
    ),
    "95 % interval": (),
}

LEGEND = {
    "robust accuracy %": "right when clean and under the attack",
    "robust pixel accuracy %": "pixels right when clean and under the attack",
    "95 % interval": "of the share, exact (Clopper and Pearson)",
    _OF_IOU: "bootstrap over images",
    "isolated %": "right where the attacked part alone sees the attack",
    "flip rate %": "examples whose first expert changed",
    "gradient evaluations": "for each example",
}

# Of attacks on the router or the experts: where that part alone sees the attacked clip.
_ISOLATED = Column("isolated %", lambda row: _percent(row.isolated_accuracy))


def _measure(name: str) -> Column:
    """The column of a measure, under its own name where this process does not know it."""
    title = MEASURES[name].title if name in MEASURES else name
    return Column(title, lambda row: _number((row.measures or {}).get(name)))


def main_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The titles and the cells of the main table."""
    columns = COLUMNS
    if any(row.mean_iou is not None for row in rows):
        columns = [part for column in columns for part in _DENSE.get(column.title, (column,))]
    if any(row.isolated_accuracy is not None for row in rows):
        place = [column.title for column in columns].index("n")
        columns = [*columns[:place], _ISOLATED, *columns[place:]]
    for name in rows[0].measures or () if rows else ():
        columns = [*columns, _measure(name)]
    return [c.title for c in columns], [[c.cell(row) for c in columns] for row in rows]


def legend(rows: Sequence[Row]) -> str:
    """Returns what the columns of the main table are."""
    titles, _ = main_table(rows)
    said = [f"{title.removesuffix(' %')}: {LEGEND[title]}" for title in titles if title in LEGEND]
    return "; ".join(said)


def print_suite(
    result: SuiteResult, flops: MixtureFlops | None = None, file: TextIO | None = None
) -> None:
    """Prints the rows, load, Lipschitz figures, the checks of masked gradients and GFLOPs.

    Args:
      result: of `evaluate_suite`.
      flops: of `mixture_flops`, if they were counted.
      file: where to; None is standard output. A file that is no terminal gets plain ASCII.
    """
    print_attacks(result, file)
    print_checks((*result.checks, *result.model_checks), file)
    if flops is not None:
        print_flops(flops, file)


def print_attacks(result: SuiteResult, file: TextIO | None = None) -> None:
    """Prints what attacks found: rows, cascades, notes, load and Lipschitz figures."""
    sheet = _Sheet(file or sys.stdout)
    first = result.rows[0]
    sheet.table(
        f"n = {first.n} examples, seed {first.seed}, norm {first.norm}",
        *main_table(result.rows),
        bold=lambda row: row[0] in (CLEAN, WORST_CASE),
    )
    sheet.line(legend(result.rows))
    _print_stages(sheet, result.stages, first.norm)
    for note in result.notes:
        sheet.line(note)
    if result.specialization is not None:
        _print_specialization(sheet, result.specialization)
    _print_load(sheet, result.rows)
    _print_lipschitz(sheet, result.rows)


def print_flops(flops: MixtureFlops, file: TextIO | None = None) -> None:
    """Prints GFLOPs per example alone."""
    _print_flops(_Sheet(file or sys.stdout), flops)


def print_table(
    title: str, titles: list[str], rows: list[list[str]], file: TextIO | None = None
) -> None:
    """Prints one table, as `print_suite` prints its own."""
    _Sheet(file or sys.stdout).table(title, titles, rows)


def _print_stages(sheet: "_Sheet", stages: Sequence[StageRow], norm: str) -> None:
    rows = [
        [
            stage.cascade,
            format_epsilon(stage.epsilon, norm),
            stage.attack,
            _percent(stage.robust_accuracy),
            f"{stage.standing} of {stage.attacked}",
            str(stage.gradient_evaluations),
            f"{stage.seconds:.2f}",
        ]
        for stage in stages
    ]
    if rows:
        titles = ["cascade", "ε", "attack", "robust accuracy %", "left", "gradients", "seconds"]
        sheet.table("", titles, rows)


def print_checks(checks: Sequence[Check], file: TextIO | None = None) -> None:
    """Prints the checks, and what they say together."""
    sheet = _Sheet(file or sys.stdout)
    rows = [[check.verdict, check.name, _number(check.value), check.sentence] for check in checks]
    if rows:
        titles = ["verdict", "check", "value", "meaning"]
        sheet.table("", titles, rows, bold=lambda row: row[0] == "flag")
    sheet.line(verdict_line(checks))


def specialization_table(found: Specialization) -> tuple[list[str], list[list[str]]]:
    """Returns titles and cells of the table of experts by themselves and of the router."""
    ranks = len(found.by_trust)
    shares = [
        ("the mixture", found.mixture),
        *((f"expert {i} alone", expert) for i, expert in enumerate(found.experts)),
        ("a random route", found.random_route),
        *((f"trusted as {i + 1} of {ranks}", rank) for i, rank in enumerate(found.by_trust)),
        ("any expert right", found.oracle),
        *((f"perfect route by {name}", route) for name, route in found.perfect_route.items()),
        ("routing gain", found.routing_gain),
        ("mixture gain", found.mixture_gain),
    ]
    rows = [
        [name, _percent(e.value), f"{_percent(e.low)} to {_percent(e.high)}"] for name, e in shares
    ]
    rows.append(["two experts agree", _percent(found.agreement), ""])
    information = dict(found.column_information)
    if found.class_information is not None:
        information = {"class": found.class_information, **information}
    for name, nats in information.items():
        interval = f"{nats.low:.3f} to {nats.high:.3f}"
        rows.append([f"nats that route and {name} share", f"{nats.value:.3f}", interval])
    return ["clean examples", "%, or nats", "95 % interval"], rows


def _print_specialization(sheet: "_Sheet", found: Specialization) -> None:
    sheet.table("What the experts can do and the router decides", *specialization_table(found))
    sheet.line(specialization_sentence(found))


def _print_load(sheet: "_Sheet", rows: Sequence[Row]) -> None:
    clean = rows[0]
    if clean.load_clean is None:
        return
    table = [["clean", "0", *_load(clean.load_clean, clean.routing_entropy_clean)]]
    for row in rows:
        if row.load_adversarial is not None:
            load = _load(row.load_adversarial, row.routing_entropy_adversarial)
            table.append([row.attack, format_epsilon(row.epsilon, row.norm), *load])
    titles = ["attack", "ε", "load of each expert %", "routing entropy, nats", "of log M"]
    sheet.table("", titles, table)


def _load(load: list[float], entropy: float) -> list[str]:
    normalized = entropy / math.log(len(load)) if len(load) > 1 else 0.0
    return [_join(100 * share for share in load), f"{entropy:.3f}", f"{normalized:.3f}"]


def _print_lipschitz(sheet: "_Sheet", rows: Sequence[Row]) -> None:
    table = []
    for row in rows:
        if row.lipschitz_model_mean is None:
            continue
        line = [
            row.attack,
            format_epsilon(row.epsilon, row.norm),
            _number(row.lipschitz_model_mean),
        ]
        if row.lipschitz_experts_mean is not None:
            line += [
                _number(row.lipschitz_router_weights_mean),
                _number(row.lipschitz_router_logits_mean),
                " ".join(_number(value) for value in row.lipschitz_experts_mean),
            ]
        table.append(line)
    if not table:
        return
    titles = ["attack", "ε", "F", "softmax(r)", "r", "each expert"][: len(table[0])]
    sheet.table("Mean Lipschitz quotient, MSE(g(x'), g(x)) / MSE(x', x)", titles, table)


def _print_flops(sheet: "_Sheet", flops: MixtureFlops) -> None:
    titles = ["router", "one expert", "mixture", "dense", "mixture / dense", "without padding"]
    values = (flops.router, flops.expert, flops.sparse, flops.dense, flops.ratio, flops.ideal_ratio)
    sheet.table("GFLOPs per example", titles, [[f"{value:.4g}" for value in values]])


def _join(values) -> str:
    return " ".join(f"{value:.0f}" for value in values)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _ascii(text: str) -> str:
    """A log file or a pager may know no other letters."""
    for letter, name in {"ε": "eps", "α": "alpha", "σ": "sigma", "ℓ": "l", "×": "x"}.items():
        text = text.replace(letter, name)
    return text.encode("ascii", "replace").decode()


class _Sheet:
    """Where tables go: rich ones to a terminal, aligned plain ASCII anywhere else."""

    def __init__(self, file: TextIO):
        self.file = file
        self.console = Console(file=file) if file.isatty() else None

    def line(self, text: str) -> None:
        """Prints a sentence and an empty line."""
        if self.console is not None:
            self.console.print(text, markup=False, highlight=False)
        else:
            print(_ascii(text), file=self.file)
        print(file=self.file)

    def table(
        self,
        title: str,
        titles: list[str],
        rows: list[list[str]],
        bold: Callable[[list[str]], bool] = lambda row: False,
    ) -> None:
        """Prints one table; the first column is text, so are those that hold a sentence."""
        if self.console is not None:
            table = Table(title=title or None, title_justify="left")
            for column, name in enumerate(titles):
                table.add_column(name, justify="left" if _is_text(rows, column) else "right")
            for row in rows:
                table.add_row(*row, style="bold" if bold(row) else None)
            self.console.print(table)
            return
        lines = [[_ascii(cell) for cell in row] for row in [titles, *rows]]
        widths = [max(len(row[column]) for row in lines) for column in range(len(titles))]
        if title:
            print(_ascii(title), file=self.file)
        for row in lines:
            padded = [
                cell.ljust(width) if _is_text(rows, column) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            print("  ".join(padded).rstrip(), file=self.file)
        print(file=self.file)


def _is_text(rows: list[list[str]], column: int) -> bool:
    return any(any(mark.isalpha() for mark in row[column]) for row in rows)
