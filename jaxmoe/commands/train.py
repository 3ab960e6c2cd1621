"""`jaxmoe train CONFIG.py [--section.field value …]`."""

import contextlib
import dataclasses
import pathlib
from typing import TYPE_CHECKING

from jaxmoe.commands.arguments import (
    RunFailedError,
    Stopped,
    load_config,
    notes_on_classes,
    notes_on_examples,
)

if TYPE_CHECKING:
    from jaxmoe.config import Experiment

# EX_TEMPFAIL: launchers start such a run again.
PREEMPTED = 75

_USAGE = """usage: jaxmoe train CONFIG.py [--section.field value …]

Trains a mixture of experts as CONFIG.py says and writes everything into the run's folder
(--run.directory): checkpoints, metrics, TensorBoard, the resolved configuration. The same command
resumes a run that was stopped, from its last checkpoint.

CONFIG.py is a python file with config() -> jaxmoe.config.Experiment; configs/ has examples. Every
field of it can be replaced on the command line:

  jaxmoe train configs/video/ut_interaction_at_m.py --data.directory DIR --threat.epsilon 4/255

--data, --expert, --router and --recipe take a name, and each has fields of its own, which are shown
for the names that are chosen here: jaxmoe train --expert vit --recipe rt_er --help.

fields, with their values {origin}:"""


def run(arguments: list[str]) -> None:
    """Trains the experiment that the arguments describe.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
      RunFailedError: numbers that were not finite.
      Stopped: Ctrl-C, or SIGTERM.
    """
    wants_help = any(argument in ("-h", "--help") for argument in arguments)
    arguments = [argument for argument in arguments if argument not in ("-h", "--help")]
    path = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if wants_help:
        _print_help(path, arguments)
        return
    if any(argument.startswith("--run.plugins") for argument in arguments):
        raise ValueError("--run.plugins: a run records them itself; expected --plugin FILE.py")
    if path is None:
        raise ValueError("train: CONFIG.py is missing; see jaxmoe train --help")

    from jaxmoe.config import validate
    from jaxmoe.overrides import apply_overrides
    from jaxmoe.plugins import load_plugins

    experiment = apply_overrides(load_config(path), arguments[1:])
    load_plugins(experiment.run.plugins or ())
    experiment = validate(experiment)
    train_and_tell(experiment)

    from jaxmoe.parallel import hosts

    if hosts.is_first():
        print(f"trained; see the table with: jaxmoe evaluate {experiment.run.directory}")


def train_and_tell(experiment: "Experiment") -> None:
    """Trains an experiment, or the rest of it, says what it sees and draws its curves.

    Raises:
      RunFailedError: numbers that were not finite.
      Stopped: Ctrl-C, or SIGTERM.
    """
    from jaxmoe.data import load_dataset
    from jaxmoe.parallel import hosts
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.folder import state_of
    from jaxmoe.runs.run import train
    from jaxmoe.training import Checkpoints, NonFiniteTrainingError, PreemptedError

    folder = experiment.run.directory
    run = pathlib.Path(folder)
    checkpoints = Checkpoints(run)
    try:
        with make_progress() as progress:
            dataset = hosts.first(lambda: load_dataset(experiment.data, progress=progress.data))
            listed = str(run / "run.json")
            for line in [*notes_on_examples(dataset, listed), *notes_on_classes(dataset)]:
                progress.say(line)
            if run.is_dir() and not checkpoints.has("latest") and state_of(run) == "stopped":
                progress.say(f"{folder} has no latest checkpoint: it is trained from the start")
            train(experiment, progress)
    except NonFiniteTrainingError as error:
        kept = f"the last checkpoint is in {folder}"
        kept = kept if checkpoints.has("latest") else "it had no checkpoint yet"
        raise RunFailedError(f"{error}; {kept}") from None
    except PreemptedError as error:
        again = f"the same command resumes {folder} from there"
        raise Stopped(f"{error}; {again}", code=PREEMPTED) from None
    except KeyboardInterrupt:
        following = f"resumes {folder} from its last checkpoint"
        if not checkpoints.has("latest"):
            following = f"begins {folder} anew: it has no checkpoint yet"
        raise Stopped(f"stopped; the same command {following}") from None
    if not hosts.is_first():
        return
    for line in notes_on_routes(run):
        print(line)
    draw_training(run)


def draw_training(run: pathlib.Path) -> None:
    """Draws the training curves beside the metrics."""
    from jaxmoe.reporting import plot_training
    from jaxmoe.training.metrics_log import read_metrics

    plot_training(read_metrics(run), run)


def notes_on_routes(run: pathlib.Path) -> list[str]:
    """Returns a line if routes do not matter in a trained mixture, by its last validation."""
    from jaxmoe.reporting.progress import fault_of_routes
    from jaxmoe.training.metrics_log import read_metrics

    validated = [entry for entry in read_metrics(run) if "validation/accuracy" in entry]
    found = validated[-1] if validated else {}
    gain, load = found.get("validation/routing_gain"), found.get("validation/largest_load")
    fault = None if gain is None else fault_of_routes(gain, load)
    if fault is None:
        return []
    return [
        f"{run}: {fault} (validation: {100 * gain:+.1f} points on a random route, busiest expert "
        f"{load:.0%} of the examples). Attacks on this router say nothing about mixtures; "
        "training.specialize-epochs make experts part"
    ]


def _print_help(path: str | None, arguments: list[str]) -> None:
    from jaxmoe.config import Experiment
    from jaxmoe.overrides import apply_overrides

    experiment = load_config(path) if path else Experiment()
    with contextlib.suppress(ValueError):  # what is not finished yet is what help is asked about
        experiment = apply_overrides(experiment, arguments[1:] if path else arguments)
    print(_USAGE.format(origin=f"in {path}" if path else "where CONFIG.py does not set them"))
    print("\n".join(describe_fields(experiment)))


def describe_fields(experiment: object, sections: tuple[str, ...] | None = None) -> list[str]:
    """Lines that say each field's name, value, accepted values and meaning."""
    from jaxmoe.overrides import list_fields
    from jaxmoe.registry import Entry

    lines = []
    for section in dataclasses.fields(experiment):
        if sections is not None and section.name not in sections:
            continue
        part = getattr(experiment, section.name)
        summary = (type(part).__doc__ or "").partition("\n")[0]
        lines += ["", f"{section.name}: {summary}"]
        if isinstance(part, Entry):
            lines.append(f"  --{section.name} {part.name}")
            lines.append(f"      one of {', '.join(part.registry)}")
        for field in list_fields(experiment, section.name):
            lines.append(f"  --{field.name} {_shown(field.value)}")
            lines.append(f"      {'; '.join(filter(None, (field.help, field.accepted)))}")
    return lines


def _shown(value: object) -> str:
    """A value as one would type it."""
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
