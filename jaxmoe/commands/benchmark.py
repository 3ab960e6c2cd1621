"""`jaxmoe benchmark`: ratios measured on this machine, against the library's bars."""

import pathlib
import sys

from jaxmoe.commands.arguments import Parser

_DESCRIPTION = """Measures ratios on this machine, each from interleaved, warmed-up repetitions, and
compares them with the library's own bars. Lower is better, and a ratio is fine up to its bar.
Takes a few minutes; close other programs first."""


def run(arguments: list[str]) -> None:
    """Runs the benchmarks that the arguments name.

    Raises:
      ValueError: bad input, one line.
    """
    from jaxmoe.benchmarks import BENCHMARKS, VERSUS

    parser = Parser("benchmark", _DESCRIPTION)
    parser.add_argument("--output", metavar="FILE.json", help="where the rows are written, as JSON")
    parser.add_argument("--versus", choices=tuple(VERSUS), help="also against this library")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=tuple(BENCHMARKS),
        metavar="NAME",
        help=f"some of: {', '.join(BENCHMARKS)}",
    )
    options = parser.parse(arguments)
    if options.output is not None and not pathlib.Path(options.output).parent.is_dir():
        raise FileNotFoundError(
            f"--output: no such folder: {pathlib.Path(options.output).parent}; make it first"
        )
    if options.versus == "torch":
        _check_torch()

    from jaxmoe.benchmarks import run_benchmarks
    from jaxmoe.files import write_json
    from jaxmoe.reporting.progress import make_progress

    with make_progress() as progress:
        rows = run_benchmarks(options.only, options.versus, progress.say)
    if options.output is not None:
        records = [row._asdict() for row in rows]
        write_json(options.output, records)
    _print(rows)


def _check_torch() -> None:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise ValueError("--versus: torch is not installed; python -m pip install torch")


def _print(rows) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "what", "ratio", "bar", "spread", box=None, header_style="bold")
    for row in rows:
        mark = "✓" if row.ratio <= row.bar else "✗"
        low, high = row.spread
        spread = f"{low:.3f} to {high:.3f}"
        table.add_row(mark, row.name, f"{row.ratio:.3f}", f"≤ {row.bar:.2f}", spread)
    Console(file=sys.stdout, highlight=False, markup=False, width=110).print(table)
    print(f"measured on {rows[0].machine}")
