"""Attacks, convolutions, dispatch and training on one accelerator, within some minutes.

python launch/studies/accelerator/run.py [--output DIR] [--only PART …] [--minutes 8] [--tiny]

Parts are `attacks`, `dispatch`, `convolutions` and `training`, in this order. When the time is over
the run ends where it is: what was measured is printed and written to DIR/accelerator.json, and what
was not is named. Sides of a ratio run in turns in one process, so that they share the machine.
PyTorch is a side where it is installed.

Axes: B = batch, M = experts.
"""

import argparse
import dataclasses
import functools
import importlib
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

if importlib.util.find_spec("torch") is not None:
    # JAX would take most of the memory, and PyTorch needs some.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import AttackSettings, j_tlga, pgd
from jaxmoe.benchmarks import torch_pgd
from jaxmoe.benchmarks.row import machine
from jaxmoe.benchmarks.subjects import CLASSES, clips, evenly_routed
from jaxmoe.benchmarks.timing import time_in_turns
from jaxmoe.data import Augmentation, load_dataset, make_loader
from jaxmoe.mixture import Mixture
from jaxmoe.models import PooledRouter, ResNet
from jaxmoe.reporting.results import markdown_table
from jaxmoe.threat import ThreatModel
from jaxmoe.training import Batch, RecipeOptions, adamw, init_state, make_train_step
from jaxmoe.training.recipes import j_tlat

EXPERTS = 4
SETTINGS = AttackSettings(alpha=torch_pgd.ALPHA / torch_pgd.EPSILON, steps=torch_pgd.STEPS)
THREAT = ThreatModel("linf", torch_pgd.EPSILON)
GRID = (2, 2, 2)  # of the router; it divides every size below


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is. The defaults are those of the question, for one GPU."""

    depth: int = 18
    width: int = 64
    stages: tuple[int, ...] | None = None
    frames: int = 16
    side: int = 112
    batch: int = 64
    blocks: tuple[int, ...] = (16, 32)  # of the dispatch, beside the default
    # J-TLAT has three attacks and three losses: an expert of this depth compiles in time.
    trained_depth: int = 10
    trained_batch: int = 32
    trained_steps: int = 5
    rounds: int = 5
    dtypes: tuple[str, ...] = ("float32", "bfloat16")


TINY = Sizes(10, 4, (1,), 2, 16, 8, (4,), 10, 8, 1, 2, ("float32",))


class Figure(NamedTuple):
    """A rate or a ratio: the median over the rounds, and the smallest and greatest of them."""

    part: str
    name: str
    value: float
    low: float
    high: float
    unit: str


def main() -> None:
    """Measures, prints the table and writes the file."""
    options = parse(sys.argv[1:])
    sizes = TINY if options.tiny else Sizes()
    report = Report(options, sizes)
    # A compiler cannot be interrupted, so a thread ends the process in the middle of it.
    timer = threading.Timer(60 * options.minutes, report.stop)
    timer.daemon = True
    timer.start()
    for part in options.only:
        for figure in PARTS[part](sizes):
            report.add(figure)
        jax.clear_caches()
        report.done.append(part)
    timer.cancel()
    report.write()


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/accelerator"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--minutes", type=float, default=8, help="after which it ends (8)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try it on a CPU")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error(f"--minutes: {options.minutes:g} is not above 0")
    return options


class Report:
    """What was measured so far."""

    def __init__(self, options: argparse.Namespace, sizes: Sizes):
        self.options, self.sizes = options, sizes
        self.figures: list[Figure] = []
        self.done: list[str] = []
        self.lock = threading.Lock()

    def add(self, figure: Figure) -> None:
        """Keeps and prints a figure."""
        with self.lock:
            self.figures.append(figure)
        print(f"{figure.part}: {figure.name}: {figure.value:.3g} {figure.unit}", flush=True)

    def stop(self) -> None:
        """Writes what there is and ends the process."""
        print(f"stopped after {self.options.minutes:g} minutes", flush=True)
        self.write()
        os._exit(0)

    def write(self) -> None:
        """Prints the table and writes `accelerator.json`."""
        with self.lock:
            missing = [part for part in self.options.only if part not in self.done]
            record = {
                "machine": machine(),
                "torch": torch_version(),
                "sizes": dataclasses.asdict(self.sizes),
                "not_finished": missing,
                "figures": [figure._asdict() for figure in self.figures],
            }
            self.options.output.mkdir(parents=True, exist_ok=True)
            file = self.options.output / "accelerator.json"
            file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
            print("\n".join(["", *table(record)]), flush=True)


def table(record: dict) -> list[str]:
    """Markdown lines of everything that was measured, and a legend."""
    rows = [
        [
            f["part"],
            f["name"],
            f"{f['value']:.3g} {f['unit']}",
            f"{f['low']:.3g} to {f['high']:.3g}",
        ]
        for f in record["figures"]
    ]
    sizes = Sizes(**record["sizes"])
    lines = [*markdown_table(["part", "what", "median", "spread"], rows), ""]
    lines.append(f"Machine: {record['machine']}; PyTorch: {record['torch']}.")
    lines.append(
        f"{EXPERTS} experts, 3D ResNet-{sizes.depth} of width {sizes.width}"
        f"{'' if sizes.stages is None else f' with stages {sizes.stages}'}, {sizes.batch} clips of "
        f"{sizes.frames} × {sizes.side} × {sizes.side}; the place in the batch decides the expert."
    )
    lines.append(
        f"Medians of {sizes.rounds} rounds, and their spread; sides of a ratio run in turns. × is "
        "the time, or the bytes, of the first named ÷ that of the second: below 1 it takes less."
    )
    if record["not_finished"]:
        lines.append(f"Not finished in time: {', '.join(record['not_finished'])}.")
    return lines


def torch_version() -> str:
    """The version, or that there is none."""
    if importlib.util.find_spec("torch") is None:
        return "not installed, so no comparison with it"
    return importlib.import_module("torch").__version__


# What is measured --------------------------------------------------------------------------------


def attacks(sizes: Sizes) -> Iterator[Figure]:
    """PGD and J-TLGA on the mixture, and PyTorch's bare PGD on the same weights."""
    x, y = clips(sizes.batch, sizes.frames, sizes.side)
    for dtype in sizes.dtypes:
        mixture, params = subject(sizes, dtype, x)
        key, sides = jax.random.key(1), {}
        for name, build in (("PGD-10", pgd), ("J-TLGA", j_tlga)):
            run = jax.jit(build(mixture, THREAT, SETTINGS))
            sides[f"{name}, {dtype}"] = functools.partial(run, key, params, x, y)
        own, guided = sides
        sides |= torch_sides(params, x, y, dtype, mixture.apply(params, x))
        seconds = time_in_turns(sides, sizes.rounds)
        for side in sides:
            rates = [sizes.batch / s for s in seconds[side]]
            yield figure("attacks", side, rates, "clips/s")
        for side in list(sides)[1:]:
            first, second = (guided, own) if side == guided else (own, side)
            yield ratio("attacks", seconds, first, second)
        jax.clear_caches()


def dispatch(sizes: Sizes) -> Iterator[Figure]:
    """Input gradients of the mixture: dense, in larger blocks, and with less memory."""
    x, y = clips(sizes.batch, sizes.frames, sizes.side)
    mixture, params = subject(sizes, "float32", x)
    variants: dict[str, Mixture] = {
        "dense": subject(sizes, "float32", x, top_k=EXPERTS)[0],
        **{f"blocks of {n}": subject(sizes, "float32", x, block_size=n)[0] for n in sizes.blocks},
        "expert.remat": subject(sizes, "float32", x, remat=True)[0],
    }
    sides, memory = {}, {}
    for name, made in {"default blocks": mixture, **variants}.items():
        compiled = input_gradient(made.apply).lower(params, x, y).compile()
        sides[name] = functools.partial(compiled, params, x, y)
        memory[name] = compiled.memory_analysis().temp_size_in_bytes
    seconds = time_in_turns(sides, sizes.rounds)
    rates = [sizes.batch / s for s in seconds["default blocks"]]
    yield figure("dispatch", "input gradients, default blocks", rates, "clips/s")
    for name in variants:
        yield ratio("dispatch", seconds, name, "default blocks")
        share = memory[name] / memory["default blocks"]
        yield figure("dispatch", f"temporary memory, {name} / default blocks", [share], "× bytes")


def convolutions(sizes: Sizes) -> Iterator[Figure]:
    """Gradients of one expert with XLA's convolutions and with sums over kernel taps."""
    x, y = clips(sizes.batch // EXPERTS, sizes.frames, sizes.side)
    home = importlib.import_module("jaxmoe.models.conv")
    choose = home._by_platform
    for dtype in sizes.dtypes:
        expert, sides = network(sizes, dtype), {}
        params = jax.jit(expert.init)(jax.random.key(0), x[:1])
        for name, pick in (("native", 1), ("conv_taps", 0)):

            def everywhere(*choices, pick=pick):
                return choose(choices[pick], choices[pick], choices[2])

            with mock.patch.object(home, "_by_platform", everywhere):
                compiled = input_gradient(expert.apply).lower(params, x, y).compile()
            sides[f"{name}, {dtype}"] = functools.partial(compiled, params, x, y)
            jax.clear_caches()
        seconds = time_in_turns(sides, sizes.rounds)
        yield ratio("convolutions", seconds, *sides)


def training(sizes: Sizes) -> Iterator[Figure]:
    """J-TLAT's steps, and the share of a step that the loader would take by itself."""
    sizes = dataclasses.replace(sizes, depth=sizes.trained_depth, batch=sizes.trained_batch)
    with tempfile.TemporaryDirectory() as cache:
        count = {"train_clips": 4 * sizes.batch, "validation_clips": 10, "test_clips": 10}
        room = {"resolution": sizes.side * 8 // 7, "frames": sizes.frames}
        data = load_dataset("synthetic_actions", cache=cache, **room, **count)
        shape = {"frames": sizes.frames, "height": sizes.side}
        order = {"shuffle": True, "repeat": True, "seed": 0}
        mirrored = Augmentation(flip=True)
        batches = iter(
            make_loader(data.train, batch_size=sizes.batch, augmentation=mirrored, **shape, **order)
        )
        first = next(batches)
        sides = {
            "J-TLAT step": training_step(sizes, first),
            "loader's batch": lambda: next(batches)["clip"],
        }
        seconds = time_in_turns(sides, sizes.rounds)
        batches.close()
    name = f"J-TLAT, depth {sizes.depth}, {sizes.batch} clips, {sizes.trained_steps} steps a phase"
    yield figure("training", name, [1 / s for s in seconds["J-TLAT step"]], "steps/s")
    yield ratio("training", seconds, "loader's batch", "J-TLAT step")


PARTS: dict[str, Callable[[Sizes], Iterator[Figure]]] = {
    "attacks": attacks,
    "dispatch": dispatch,
    "convolutions": convolutions,
    "training": training,
}


def figure(part: str, name: str, values: list[float], unit: str) -> Figure:
    """The median of the rounds and their spread."""
    return Figure(part, name, statistics.median(values), min(values), max(values), unit)


def ratio(part: str, seconds: dict[str, list[float]], first: str, second: str) -> Figure:
    """Round by round the time of the first side ÷ that of the second."""
    values = [a / b for a, b in zip(seconds[first], seconds[second], strict=True)]
    return figure(part, f"{first} / {second}", values, "×")


# What is measured on -----------------------------------------------------------------------------


def network(sizes: Sizes, dtype: str, **fields: Any) -> ResNet:
    """One expert."""
    stages = {} if sizes.stages is None else {"stage_sizes": sizes.stages, "stem": "small"}
    given = {"depth": sizes.depth, "width": sizes.width, **stages, **fields}
    return ResNet(CLASSES, **given, dtype=jnp.dtype(dtype))


def subject(
    sizes: Sizes, dtype: str, x: jax.Array, *, remat: bool = False, **options: Any
) -> tuple[Mixture, Any]:
    """A mixture that gives each expert as many clips, and its params."""
    router = PooledRouter(EXPERTS, GRID)
    mixture, _ = evenly_routed(router, network(sizes, dtype, remat=remat), EXPERTS, **options)
    return mixture, jax.jit(mixture.init)(jax.random.key(0), x[:1])


def input_gradient(apply: Callable) -> Any:
    """The jitted gradient in x of the summed cross-entropy."""

    def loss(x, params, y):
        log_p = jax.nn.log_softmax(apply(params, x))
        return -jnp.sum(jnp.take_along_axis(log_p, y[:, None], axis=-1))

    return jax.jit(lambda params, x, y: jax.grad(loss)(x, params, y))


def training_step(sizes: Sizes, batch: dict) -> Callable[[], Any]:
    """A jitted J-TLAT step on one batch."""
    clip, label = np.asarray(batch["clip"]), np.asarray(batch["label"]) % CLASSES
    mixture, params = subject(sizes, "float32", jnp.zeros(clip[:1].shape))
    optimizer = adamw(1e-2, 1.0)
    options = RecipeOptions(attack=AttackSettings(steps=sizes.trained_steps))
    rates = (lambda _: jnp.float32(1e-3)), (lambda _: jnp.float32(torch_pgd.EPSILON))
    step = jax.jit(make_train_step(mixture, j_tlat, options, THREAT, optimizer, *rates))
    state = init_state(params, optimizer)
    held = jax.device_put(Batch(clip, label, np.arange(len(label), dtype=np.int32)))
    return lambda: step(state, held, jax.random.key(1))


def torch_sides(params: Any, x: jax.Array, y: jax.Array, dtype: str, ours: jax.Array) -> dict:
    """PyTorch's bare PGD on the same weights, eager and compiled, if it is installed.

    Each expert gets its quarter of the batch as a slice: a dispatch that depends on no data, which
    is less work than ours.

    Raises:
      RuntimeError: the two models do not agree.
    """
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    forward = torch_pgd.torch_even_mixture(params, GRID, device, getattr(torch, dtype))
    theirs = torch.tensor(np.moveaxis(np.array(x), -1, 1), device=device)
    labels = torch.tensor(np.array(y), device=device, dtype=torch.long)
    if dtype == "float32":
        torch_pgd.check_same(ours, forward(theirs))
    variants = {"PyTorch eager": forward}
    if on_gpu:
        variants["torch.compile"] = torch.compile(forward)
    return {
        f"{name}, {dtype}": functools.partial(torch_pgd.torch_pgd, function, theirs, labels)
        for name, function in variants.items()
    }


if __name__ == "__main__":
    main()
