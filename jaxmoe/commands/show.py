"""`jaxmoe show`: what a run is and how far it is, or what a config's mixture takes."""

import os
import pathlib
from argparse import Namespace
from typing import TYPE_CHECKING

from jaxmoe.commands.arguments import Parser, load_config, split_overrides

if TYPE_CHECKING:
    from jaxmoe.config import Experiment

_DESCRIPTION = """Shows what a run's folder holds: model, data, recipe, how far it is trained, and
the table of its last evaluation. It computes nothing, but with --network.

A config's mixture is shown from shapes alone: params, GFLOPs and memory of router,
expert, mixture and dense network, the shape of every variable, and an estimate of what a training
step holds. Every field can be replaced, as with jaxmoe train:

  jaxmoe show runs/ut_interaction_j_tlat
  jaxmoe show configs/video/ucf101_j_tlat.py --training.batch-size 8"""


def run(arguments: list[str]) -> None:
    """Prints it.

    Raises:
      FileNotFoundError, ValueError: no run, or a damaged one; one line.
    """
    parser = Parser("show", _DESCRIPTION, usage="jaxmoe show RUN|CONFIG.py …")
    add = parser.add_argument
    add("run", metavar="RUN|CONFIG.py", help="folder of a run, or a python file with config()")
    add("--classes", type=int, metavar="K", help="of data whose classes only its files tell")
    add("--network", action="store_true", help="of a run, too, what its mixture takes")
    add("--no-step", action="store_true", help="leave out the training step, which takes longest")
    own, overrides = split_overrides(parser, arguments)
    options = parser.parse(own)
    if options.run.endswith(".py"):
        _show_network(load_config(options.run), overrides, options)
        return
    if overrides:
        raise ValueError(f"{overrides[0]}: a run's fields stay as they are; expected a CONFIG.py")
    folder = pathlib.Path(options.run)

    from jaxmoe.runs.folder import read_experiment, recorded_classes, state_of

    experiment = read_experiment(folder)
    lines = {**_what(experiment), **_imported(folder), **_how_far(folder)}
    width = max(map(len, lines))
    print("\n".join(f"{name:<{width}}  {text}" for name, text in lines.items()))
    state = state_of(folder)
    if state == "stopped":
        print("\nnext: the same `jaxmoe train` command, which goes on where it stopped")
    print_results(folder, finished=state == "finished")
    if options.network:
        print()
        options.classes = options.classes or len(recorded_classes(folder)) or None
        _show_network(experiment, [], options)


def _show_network(experiment: "Experiment", overrides: list[str], options: Namespace) -> None:
    """Prints what a mixture takes."""
    # Nothing here runs on an accelerator.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from jaxmoe.commands.network_report import print_network
    from jaxmoe.commands.without_data import classes_of, with_directory
    from jaxmoe.config import validate
    from jaxmoe.overrides import apply_overrides
    from jaxmoe.plugins import load_plugins

    load_plugins(experiment.run.plugins or ())
    experiment = validate(with_directory(apply_overrides(experiment, overrides)))
    classes = classes_of(options.classes, experiment)
    print_network(experiment, classes, shapes=True, step=not options.no_step)


def _what(experiment) -> dict[str, str]:
    e, m, t = experiment.expert, experiment.mixture, experiment.training
    model = f"{m.experts} × {e.name}, top-{m.top_k}, {experiment.router.name} router"
    if m.experts == 1:
        model = f"one {e.name}"
    if m.dual_weight is not None:
        model = f"dual model, α = {m.dual_weight:g}, of two mixtures of {model}"
    data = " × ".join(map(str, experiment.data.shape[:-1]))
    where = f" in {experiment.data.directory}" if experiment.data.directory else ""
    own = experiment.recipe
    stages = {
        "shared": t.shared_epochs,
        "dense": t.dense_epochs,
        f"specialists by {t.specialize}": t.specialize_epochs,
        "standard": 0 if own.is_clean else t.standard_epochs,
        own.name: t.epochs,
    }
    if t.initialize_from is not None or t.initialize_experts_from is not None:
        stages = {own.name: t.epochs}
    recipe = ", ".join(f"{name} {epochs}" for name, epochs in stages.items() if epochs)
    start = t.initialize_from or ", ".join(t.initialize_experts_from or ())
    return {
        "model": model,
        "data": f"{experiment.data.name}, {data}{where}",
        "epochs": recipe + (f", from {start}" if start else ""),
    }


def _imported(folder: pathlib.Path) -> dict[str, str]:
    """Returns where imported weights came from, in the place of epochs that nobody trained."""
    from jaxmoe.files import read_json
    from jaxmoe.runs.folder import IMPORTED

    if not (folder / IMPORTED).is_file():
        return {}
    found = read_json(folder / IMPORTED)
    files = ", ".join(file["path"] for file in found["files"])
    return {"epochs": "none", "weights": f"{files} ({found['layout']})"}


def _how_far(folder: pathlib.Path) -> dict[str, str]:
    from jaxmoe.reporting.progress import show_seconds
    from jaxmoe.runs.folder import state_of
    from jaxmoe.training import Checkpoints, DamagedCheckpointError

    try:
        position = Checkpoints(folder).position("latest")
    except DamagedCheckpointError as error:
        return {"state": str(error)}
    if position is None:
        return {"state": f"{state_of(folder)}, no checkpoint yet"}
    steps, seconds = position["global_step"], show_seconds(position["seconds"])
    return {"state": f"{state_of(folder)}, {steps} steps, {seconds}"}


def print_results(folder: pathlib.Path, *, finished: bool) -> None:
    """Prints the table of the last evaluation in a folder, and what it notes."""
    from jaxmoe.files import read_json
    from jaxmoe.reporting import read_results
    from jaxmoe.reporting.tables import main_table, print_table

    if not (folder / "results.json").is_file():
        print("\nnot evaluated yet" + (f"; next: jaxmoe evaluate {folder}" if finished else ""))
        return
    rows = read_results(folder)
    print_table(f"\nlast evaluation, n = {rows[0].n}, norm {rows[0].norm}", *main_table(rows))
    if (folder / "evaluation.json").is_file():
        found = read_json(folder / "evaluation.json")
        router = (found.get("specialization") or {}).get("sentence")
        for line in [*found.get("notes", []), *([router] if router else [])]:
            print(line)
