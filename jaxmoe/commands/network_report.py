"""Tables in a terminal of what a mixture's parts take."""

import sys

from jaxmoe.config import Experiment
from jaxmoe.reporting.tables import print_table
from jaxmoe.runs.plan.parts import Network, Step, network_of, step_of


def print_network(experiment: Experiment, classes: int, *, shapes: bool, step: bool) -> None:
    """Prints params, GFLOPs and memory of a mixture's parts, and of a training step.

    Args:
      experiment: a valid one.
      classes: K.
      shapes: whether to list the shape of every variable.
      step: whether to trace a training step, which takes longest.
    """
    network = network_of(experiment, classes)
    if shapes:
        _print_shapes(network)
    _print_parts(network)
    sys.stdout.flush()
    if step:
        _print_step(step_of(experiment, classes), experiment)


def _print_shapes(network: Network) -> None:
    width = max(map(len, network.shapes))
    for path, shape in network.shapes.items():
        print(f"{path:<{width}}  {' × '.join(map(str, shape)) or 'a number'}")
    print()


def _print_parts(network: Network) -> None:
    rows = [
        [
            part.name,
            f"{part.params:,}",
            f"{part.flops / 1e9:.4g}",
            show_size(part.params_bytes),
            show_size(part.optimizer_bytes),
            show_size(part.held_bytes),
        ]
        for part in network.parts
    ]
    titles = ["part", "params", "GFLOPs", "variables", "optimizer", "one gradient"]
    print_table("Network", titles, rows)
    print(
        f"mixture / dense: {network.ratio:.2f} of the GFLOPs, of convolutions and matmuls, of a "
        f"forward pass on one example; one gradient: the most that is held at once of "
        f"{network.batch} examples, every block of the dispatch full"
    )


def _print_step(step: Step, experiment: Experiment) -> None:
    total = show_size(step.state + step.batch + step.held)
    parts = {"state": step.state, "batch": step.batch, "beside them": step.held}
    told = ", ".join(f"{name} {show_size(size)}" for name, size in parts.items())
    print(
        f"a training step, {experiment.recipe.name}, {experiment.training.batch_size} examples on "
        f"one device: {total} ({told}), estimated and not compiled"
    )


def show_size(size: float) -> str:
    """Returns a number of bytes in words."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
