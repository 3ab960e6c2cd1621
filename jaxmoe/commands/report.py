"""`jaxmoe report RUN …`: one HTML page of a run that was judged, or of several side by side."""

import pathlib
import shlex
import sys
from collections.abc import Sequence

from jaxmoe.commands.arguments import Parser, split_part

_DESCRIPTION = """Writes one HTML file that shows what an evaluation found: how robust the model is
and whether that can be trusted, all attacks, curves, where the router sends examples, examples that
play, classes, and how it was made. It opens in any current browser and needs no network.

It reads the files of RUN alone, no model and no data. Several runs stand side by side, with
differences over the same examples and their transfer matrix.

  jaxmoe report runs/j_tlat
  jaxmoe report runs/at_m runs/j_tlat --output both.html"""


def run(arguments: list[str]) -> None:
    """Writes the page.

    Raises:
      FileNotFoundError, ValueError: no run, none that was judged, or a damaged one; one line.
    """
    parser = Parser("report", _DESCRIPTION, usage="jaxmoe report RUN [RUN …] [options]")
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="folder of a run, or of an evaluation's --output")
    add("--output", metavar="FILE", help="the page (RUN/report.html; of several, beside the first)")
    add("--seed", type=int, default=0, help="of the draw of examples, where they are too many (0)")
    options = parser.parse(arguments)
    if options.seed < 0:
        raise ValueError(f"--seed: {options.seed} is not accepted; expected at least 0")
    if options.output is not None and pathlib.Path(options.output).is_dir():
        raise ValueError(f"--output: {options.output} is a folder; expected a file, such as a.html")
    folders = [folder_of(run) for run in options.runs]
    print(f"written to {write(folders, options.output, options.seed)}")


def write(
    folders: Sequence[pathlib.Path], output: pathlib.Path | str | None = None, seed: int = 0
) -> pathlib.Path:
    """Writes the page of these evaluations; returns its path."""
    from jaxmoe.reporting.page import write_page

    return write_page(folders, output, seed)


def offer(folders: Sequence[pathlib.Path], *, written: bool) -> None:
    """Prints where the page of these evaluations is, or the command that writes it.

    Args:
      folders: of the evaluations.
      written: whether to write the page now.
    """
    if written:
        try:
            print(f"see it: {write(folders)}")
            return
        except Exception as error:
            # The evaluation is complete: no file that the page reads beside it takes that back.
            print(f"no page was written: {error}", file=sys.stderr)
    print(f"see it: {shlex.join(['jaxmoe', 'report', *map(str, folders)])}")


def folder_of(run: str) -> pathlib.Path:
    """Returns where the evaluation of `RUN`, or of its part `RUN@PART`, is."""
    folder, part = split_part(run)
    if part is not None and pathlib.Path(run).is_dir():
        return pathlib.Path(run)
    return folder / (part or "")
