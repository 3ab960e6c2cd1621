"""Shared by all commands: parsing with one-line errors, config files, notes on the data."""

import argparse
import contextlib
import dataclasses
import importlib.util
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NoReturn

from jaxmoe.overrides import split_values
from jaxmoe.spelling import did_you_mean

# Options of before.
_RENAMED = {"--dual-alpha": "--dual-weight", "--examples": "--limit"}


class Stopped(Exception):  # noqa: N818
    """Ctrl-C or SIGTERM, with a line that says how to go on."""

    def __init__(self, message: str, code: int = 130):
        super().__init__(message)
        self.code = code


class RunFailedError(Exception):
    """A run that broke through no fault of its input."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose every error is a ValueError of one line."""

    def __init__(self, command: str, description: str, **options: Any):
        super().__init__(
            prog=f"jaxmoe {command}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage."""
        raise ValueError(f"{self.prog.removeprefix('jaxmoe ')}: {message}; see {self.prog} --help")

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """The options; an unknown one is an error with the nearest name.

        Where an option takes several values, commas and spaces stand between them alike.
        """
        separate = self._apart(arguments)
        for place, argument in enumerate(separate):
            # argparse knows -1 for a number, but takes -1/255 for an option.
            if re.match(r"-[\d.]+/", argument):
                name = next(
                    (o for o in reversed(separate[:place]) if o.startswith("--")), "argument"
                )
                raise ValueError(f"{name}: {argument} is below 0; expected numbers ≥ 0")
        found, unknown = self.parse_known_args(separate)
        for argument in unknown:
            name = argument.partition("=")[0]
            known = [o for o in self._option_string_actions if o[:2] == "--" and o != "--help"]
            if _RENAMED.get(name) in known:
                raise ValueError(f"{name}: it is called {_RENAMED[name]} now")
            hint = did_you_mean(name, known) if name.startswith("--") else ""
            raise ValueError(f"{name}: no such argument{hint}")
        return found

    def _apart(self, arguments: list[str]) -> list[str]:
        """`--attacks pgd,tlga-r` and `--attacks="pgd tlga-r"` as `--attacks pgd tlga-r`."""
        separate, takes_several = [], False
        for argument in arguments:
            name, equals, value = argument.partition("=")
            if name.startswith("--"):
                action = self._option_string_actions.get(name)
                takes_several = action is not None and action.nargs == "+"
                if not (equals and takes_several):
                    separate.append(argument)
                    continue
                separate.append(name)
                argument = value
            separate += split_values(argument) if takes_several else [argument]
        return separate


def split_overrides(parser: Parser, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Returns a command's own arguments, and those that are fields of the config."""
    known = parser._option_string_actions
    own, overrides = [], []
    into = own
    for argument in arguments:
        if argument.startswith("-") and not argument[1:2].isdigit():
            name = argument.partition("=")[0]
            section = name[2:].partition(".")[0].replace("-", "_")
            # Registries' names have no dot: --recipe at_m.
            of_config = "." in name or section in ("data", "expert", "router", "recipe")
            into = overrides if of_config and name not in known else own
        into.append(argument)
    return own, overrides


def number(text: str) -> float:
    """An argument that is a number or a fraction, 8/255."""
    from jaxmoe.overrides import parse_number

    try:
        return parse_number(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is not accepted; expected a number or a fraction such as 8/255"
        ) from None


COUNTS = ("steps", "restarts", "queries", "targets")  # of `AttackSettings`, as options


def add_attack_options(parser: Parser, example: str) -> None:
    """The options of every command that attacks runs; `example` has names of attacks."""
    add = parser.add_argument
    add("--attacks", nargs="+", metavar="NAME", help=f"attacks by name, such as {example}")
    add(
        "--epsilons",
        nargs="+",
        type=number,
        metavar="E",
        help="radii in pixel units, 0.0157 or 4/255",
    )
    add("--norm", choices=("linf", "l2"), help="of the perturbation (as the run was trained)")
    add("--steps", type=int, help="gradient steps of an attack")
    add("--restarts", type=int, help="random starts; a robust example survives all")
    add("--queries", type=int, help="looks of a black-box attack")
    add("--targets", type=int, help="wrong classes that a targeted attack aims at")
    add("--seed", type=int, help="of the random starts")
    add_data_options(parser)


_DATA = ("name", "directory", "manifest")


def add_data_options(parser: Parser) -> None:
    """The options of every command that judges a run by examples."""
    add = parser.add_argument
    add(
        "--data.directory",
        dest="data_directory",
        metavar="DIR",
        help="where the run's data is now, or others of its classes, their test split or all",
    )
    add(
        "--data.manifest",
        dest="data_manifest",
        metavar="FILE",
        help="another manifest.csv, of other examples of its classes",
    )
    add(
        "--data.name",
        dest="data_name",
        metavar="NAME",
        help="how other examples are arranged, such as video_folder, image_folder or npz",
    )


def data_fields(options: argparse.Namespace) -> dict[str, str]:
    """The fields of `DataConfig` that `add_data_options` was given."""
    given = {name: getattr(options, f"data_{name}") for name in _DATA}
    return {name: value for name, value in given.items() if value is not None}


def split_part(run: str) -> tuple[pathlib.Path, str | None]:
    """The folder of `RUN` or `RUN@PART`, and the part; a folder may have an @ in its name."""
    folder, at, part = run.rpartition("@")
    if not at or (pathlib.Path(run) / "config.json").is_file():
        return pathlib.Path(run), None
    return pathlib.Path(folder), part


def take_part(trained: Any, part: str | None) -> Any:
    """The run with one of its mixture's parts in the mixture's place; as it is of None.

    Raises:
      ValueError: no such part.
    """
    if part is None:
        return trained
    from jaxmoe.mixture import component

    try:
        return trained._replace(mixture=component(trained.mixture, part))
    except ValueError as error:
        raise ValueError(f"RUN: {error}") from None


def take_dual_weight(trained: Any, alpha: float | None, part: str | None) -> Any:
    """The run of a dual model with another α; as it is of None.

    Raises:
      ValueError: no dual model, a part of it, which has no α, or no α.
    """
    if alpha is None:
        return trained
    from jaxmoe.mixture import with_dual_weight

    experiment = trained.experiment
    if experiment.mixture.dual_weight is None:
        raise ValueError("--dual-weight: RUN is no dual model: it has no mixture.dual_weight")
    if part is not None:
        raise ValueError(f"--dual-weight: {part} is a part of a dual model, which has no alpha")
    if not 0 <= alpha <= 1:
        raise ValueError(f"--dual-weight: {alpha:g} is not accepted; expected from 0 to 1")
    mixture = dataclasses.replace(experiment.mixture, dual_weight=alpha)
    return trained._replace(
        experiment=dataclasses.replace(experiment, mixture=mixture),
        params=with_dual_weight(trained.params, alpha),
    )


@contextlib.contextmanager
def hold_output(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """Keeps other commands from writing results and journals into the same folder meanwhile.

    Yields the folder to write into. Of several processes the first alone has that one: what the
    others write is thrown away.
    """
    from jaxmoe.files import hold
    from jaxmoe.parallel import hosts

    if hosts.is_first():
        with hold(output, "results", "--output", "is being written into"):
            yield output
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder)


def note_on_state(folder: pathlib.Path, trained: Any, checkpoint: str) -> str | None:
    """A line where a run was not trained to its end: stopped, or going on now."""
    if trained.finished:
        return None
    if trained.state == "training":
        return f"{folder} is still training; its {checkpoint} checkpoint so far is judged"
    return f"{folder} was stopped before the end of its training"


def chosen_norm(options: argparse.Namespace, own: str) -> str:
    """The norm asked for, or the run's own; of another norm the config has no ε."""
    norm = options.norm or own
    if norm != own and not options.epsilons:
        raise ValueError(f"--norm: {norm} needs --epsilons; the config has those of {own}")
    return norm


def check_attack_options(
    epsilons: list[float], norm: str, seed: int, option: str = "--epsilons", **counts: int
) -> None:
    """Refuses an impossible ε or seed, and counts below 1, which are named as their options.

    `option` is what the radii are called.
    """
    for epsilon in epsilons:
        if norm == "linf" and 1 < epsilon < float("inf"):
            raise ValueError(
                f"{option}: {epsilon:g} is not accepted; pixels are in [0, 1], expected ε in "
                "their unit, such as 8/255"
            )
        if not 0 <= epsilon < float("inf"):
            raise ValueError(f"{option}: {epsilon:g} is not accepted; expected finite numbers ≥ 0")
    for name, value in counts.items():
        if value < 1:
            count = "--" + name.replace("_", "-")
            raise ValueError(f"{count}: {value} is not accepted; expected at least 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed: {seed} is not accepted; expected 0 to 2**32 - 1")


def load_config(path: str) -> Any:
    """Returns the `Experiment` that a config file's `config()` returns.

    Raises:
      FileNotFoundError, ValueError: as `load_from`.
    """
    from jaxmoe.config import Experiment

    return load_from(path, "config", Experiment)


def load_from(path: str, function: str, kind: type) -> Any:
    """Returns what a function of a python file returns.

    The file's own folder is searched for its imports while it is read.

    Args:
      path: of the file.
      function: its name.
      kind: what it has to return.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file without the function, or one that raises or returns something else.
    """
    from jaxmoe.plugins import loaded
    from jaxmoe.registry import UnknownEntryError

    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"CONFIG: no such file: {path}; expected a python file")
    if file.suffix != ".py":
        raise ValueError(f"CONFIG: {path} is no python file; expected one with {function}()")
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_file_location(f"jaxmoe_config_{file.stem}", file)
    )
    folder, keep = str(file.resolve().parent), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    # A command that refuses its input leaves nothing behind, not even __pycache__.
    sys.dont_write_bytecode = True
    try:
        module.__spec__.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            article = "an" if kind.__name__[0] in "AEIOU" else "a"
            raise _Refused(f"has no function {function}() that returns {article} {kind.__name__}")
        found = getattr(module, function)()
    except _Refused as error:
        raise ValueError(f"CONFIG: {path} {error}") from None
    except UnknownEntryError as error:
        hint = "" if loaded() else "; of your own? --plugin FILE.py names the file that adds it"
        raise ValueError(f"CONFIG: {path}: {error}{hint}") from None
    except Exception as error:
        raise ValueError(f"CONFIG: {path} raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
        sys.dont_write_bytecode = keep
    if not isinstance(found, kind):
        raise ValueError(
            f"CONFIG: {function}() of {path} returned {type(found).__name__}; expected "
            f"{kind.__name__}"
        )
    return found


class _Refused(Exception):  # noqa: N818
    """A config file that is refused; the message says why."""


def notes_on_examples(dataset: Any, rest: str | None) -> list[str]:
    """The data set's notes, and lines about examples that were skipped or padded.

    Args:
      dataset: a `data.Dataset`.
      rest: where all of them are listed, for the line after the first ten; None lists all here.
    """
    lines = list(dataset.notes)
    for what, examples in (
        ("skipped", dataset.skipped),
        ("padded with their last frame", dataset.padded),
    ):
        if not examples:
            continue
        were = "example was" if len(examples) == 1 else "examples were"
        lines.append(f"{len(examples)} {were} {what}:")
        shown = examples if rest is None else examples[:_SHOWN]
        lines += [f"  {path}: {reason}" for path, reason in shown]
        if len(shown) < len(examples):
            lines.append(f"  … and {len(examples) - len(shown)} more, all in {rest}")
    return lines


def notes_on_classes(dataset: Any) -> list[str]:
    """A line for each split in which a class has no clip, or no pixel, and why pixels have none.

    Args:
      dataset: a `data.Dataset`.
    """
    from jaxmoe.data import describe

    summary, lines = describe(dataset), []
    for name, split in summary.splits.items():
        if absent := split.absent:
            more = ", …" if len(absent) > _SHOWN else ""
            lines.append(
                f"{name} has none of: {', '.join(absent[:_SHOWN])}{more} "
                f"({len(absent)} of {len(summary.classes)} classes)"
            )
    void = any(split.absent and split.void for split in summary.splits.values())
    if void and summary.name == "segmentation_folder":
        last = len(summary.classes) - 1
        lines.append(f"numbers of label maps other than 0 to {last} are void: no class")
    return lines


_SHOWN = 10
