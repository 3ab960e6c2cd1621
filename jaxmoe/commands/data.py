"""`jaxmoe data`: prepares a dataset if need be, and shows what is in it."""

import contextlib
import sys

from jaxmoe.commands.arguments import load_config, notes_on_classes, notes_on_examples

_USAGE = """usage: jaxmoe data CONFIG.py [--data.field value …]
       jaxmoe data --name NAME [--directory DIR] [--field value …]

Prepares a dataset if that was not done before, and shows classes, examples of each split and class,
frames, and the files that were skipped, by name. It trains nothing.

  jaxmoe data configs/video/ut_interaction_standard.py --data.directory DIR
  jaxmoe data --name video_folder --directory DIR     (a folder per class, or a manifest.csv)

fields; `--directory` is short for `--data.directory` and so on:"""


def run(arguments: list[str]) -> None:
    """Describes the dataset that the arguments name.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
    """
    from jaxmoe.commands.train import describe_fields
    from jaxmoe.config import Experiment, validate_data
    from jaxmoe.overrides import apply_overrides

    wants_help = any(argument in ("-h", "--help") for argument in arguments)
    arguments = [argument for argument in arguments if argument not in ("-h", "--help")]
    path = arguments[0] if arguments and not arguments[0].startswith("-") else None
    experiment = load_config(path) if path else Experiment()
    overrides = [_with_section(argument) for argument in arguments[1 if path else 0 :]]
    if wants_help:
        with contextlib.suppress(ValueError):
            experiment = apply_overrides(experiment, overrides)
        print(_USAGE)
        print("\n".join(describe_fields(experiment, ("data",))))
        return
    if not arguments:
        raise ValueError("data: CONFIG.py or --name is missing; see jaxmoe data --help")
    experiment = validate_data(apply_overrides(experiment, overrides))

    from jaxmoe.data import describe, load_dataset
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.build import cropped

    with make_progress() as progress:
        dataset = load_dataset(experiment.data, progress=progress.data)
    _print(describe(dataset))
    if path and (note := cropped(dataset.test, experiment.data)):
        print(note)
    print("\n".join([*notes_on_classes(dataset), *notes_on_examples(dataset, rest=None)]))


def _with_section(argument: str) -> str:
    name = argument.partition("=")[0]
    if argument.startswith("--") and "." not in name and name != "--data":
        return f"--data.{argument[2:]}"
    return argument


def _of_class(split, name: str) -> str:
    """How many examples are of a class, or which share of the labelled pixels."""
    if not split.pixels_per_class:
        return str(split.clips_per_class[name])
    return f"{split.pixels_per_class[name] / sum(split.pixels_per_class.values()):.1%}"


def _print(summary) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False, markup=False)
    splits = summary.splits
    table = Table("class", *splits, box=None, header_style="bold")
    for name in summary.classes:
        table.add_row(name, *(_of_class(split, name) for split in splits.values()))
    if splits["train"].pixels_per_class:
        table.add_row("void, of all pixels", *(f"{split.void:.1%}" for split in splits.values()))
    table.add_row("all", *(str(split.clips) for split in splits.values()), style="bold")
    if any(split.most_frames > 1 for split in splits.values()):  # else they are images
        for what in ("fewest_frames", "median_frames", "most_frames"):
            label = what.replace("_", " ")
            table.add_row(label, *(f"{getattr(split, what):g}" for split in splits.values()))
    what = "labelled pixels" if splits["train"].pixels_per_class else "examples"
    console.print(f"{summary.name}: {len(summary.classes)} classes, {what} by split", style="bold")
    console.print(table)
    held_out = [name for name, split in splits.items() if split.held_out]
    if held_out:
        console.print(f"held out of train, as the data has none: {', '.join(held_out)}")
    # A path is for copying: no line breaks in it.
    print(f"prepared records: {summary.folder}")
