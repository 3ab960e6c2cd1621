"""The same attacks in foolbox and torchattacks: whether the results agree, and how fast they are.

python launch/versus/libraries.py --output FILE.json [--only agreement speed]

Agreement: share of the pixels whose perturbations are within 1e-4 of each other's, on a smooth
network with the same weights in JAX and PyTorch, float32, from the clean images. Speed: PGD-10 on
the 3D ResNet of `jaxmoe benchmark`, both sides in turns, without compilation.

Axes: B = batch, H W = height, width, C = channels. [B, H, W, C] here, [B, C, H, W] in PyTorch.
"""

import argparse
import contextlib
import functools
import importlib.util
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from library_attacks import (
    SIGN_MOMENTUM,
    SIZE,
    STEPS,
    THREATS,
    foolbox_attacks,
    jax_model,
    module,
    our_attacks,
    smooth_network,
    smooth_weights,
    to_labels,
    to_numpy,
    to_torch,
    torch_model,
    torchattacks_attacks,
)

from jaxmoe.attacks import AttackSettings, pgd
from jaxmoe.benchmarks import torch_pgd
from jaxmoe.benchmarks.row import Row
from jaxmoe.benchmarks.subjects import clips, resnet
from jaxmoe.benchmarks.timing import compare
from jaxmoe.files import write_json
from jaxmoe.threat import ThreatModel

LIBRARIES = ("torch", "foolbox", "torchattacks")
NEAR, SHARE = 1e-4, 0.99
TORCHATTACKS_BAR, FOOLBOX_BAR = 1.2, 0.5
IMAGES = 64
ROUNDS = 5
CLIPS, FEW = 8, 2  # XLA's gradients of 3D convolutions take over 20 times as long as ours
NOTES = {
    (
        "mi-fgsm",
        "torchattacks",
    ): "gradients over their mean there, over their sum here: the same signs",
    ("pgd-l2", "torchattacks"): "1e-10 added to the gradient's length there",
    (SIGN_MOMENTUM, "foolbox"): "foolbox's MI-FGSM against the same chain of our pieces",
}


class Agreement(NamedTuple):
    """How much of two libraries' perturbations is the same."""

    attack: str
    library: str
    share: float  # of the pixels, within NEAR
    bar: float | None  # None where the definitions differ
    largest: float  # difference of a pixel
    note: str


def main() -> None:
    """Prints and writes what was asked for."""
    options = parse(sys.argv[1:])
    check_installed()
    # foolbox imports names that SciPy has deprecated.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    record: dict[str, Any] = {"versions": versions(), "threads": _torch_threads()}
    if "agreement" in options.only:
        rows = agreements()
        record["agreement"] = [row._asdict() for row in rows]
        print(agreement_table(rows), flush=True)
    if "speed" in options.only:
        ratios = speeds()
        record["speed"] = [row._asdict() for row in ratios]
        print(speed_table(ratios))
    write_json(options.output, record)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.json")
    kinds = ("agreement", "speed")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    options = parser.parse_args(arguments)
    if not options.output.absolute().parent.is_dir():
        parser.error(f"--output: no such folder: {options.output.parent}; make it first")
    return options


def check_installed() -> None:
    """Exits with one line where a library is missing."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        sys.exit(f"not installed: {', '.join(missing)}; python -m pip install {names}")


def versions() -> dict[str, str]:
    """Of the libraries compared."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("jax", *LIBRARIES)}


def agreements() -> list[Agreement]:
    """All attacks in all libraries, on the smooth network."""
    weights = smooth_weights()
    # Some pixels lie at the box's faces.
    x = np.random.default_rng(1).normal(0.5, 0.3, (IMAGES, SIZE, SIZE, 3))
    x = np.clip(x, 0, 1).astype(np.float32)
    y = np.asarray(smooth_network(weights, x).argmax(-1), np.int32)
    ours = our_attacks(weights, x, y)
    theirs = {
        "torchattacks": torchattacks_attacks(weights, x, y),
        "foolbox on PyTorch": foolbox_attacks(torch_model(weights), to_torch(x), to_labels(y)),
        "foolbox on JAX": foolbox_attacks(jax_model(weights), jnp.asarray(x), jnp.asarray(y)),
    }
    rows = []
    for library, attacks in theirs.items():
        for attack, run in attacks.items():
            found = to_numpy(run())
            rows.append(agree(attack, library, ours[attack], found, x))
            if (attack, library.split()[0]) == (SIGN_MOMENTUM, "foolbox"):
                rows.append(agree("mi-fgsm", library, ours["mi-fgsm"], found, x, bar=None))
    return rows


def agree(attack, library, ours, found, x, bar: float | None = SHARE) -> Agreement:
    """The row of one attack: `found` is [B, H, W, C]."""
    # Ours returns the iterate of the greatest loss, they the last one. Where ours is another one,
    # there is nothing to compare.
    last = np.argmax(np.asarray(ours.loss_trace), 0) == ours.loss_trace.shape[0] - 1
    apart = np.abs((np.asarray(ours.x_adv) - x) - (found - x))[last]
    note = f"{NOTES.get((attack, library.split()[0]), 'the same definition')}; " * (bar is not None)
    note = note or "sign of momentum of signs: not Dong et al.'s gradients over their ℓ1 norm; "
    note += f"our best iterate is the last for {np.sum(last)} of {len(last)} images"
    share = float(np.mean(apart <= NEAR)) if last.any() else 0.0
    return Agreement(attack, library, share, bar, float(apart.max(initial=0)), note)


def speeds() -> list[Row]:
    """PGD-10 on the 3D ResNet against torchattacks, and against foolbox on the same JAX model."""
    import foolbox
    import torch
    import torchattacks

    x, y = clips(CLIPS, 8, 64)
    model = resnet()
    params = model.init(jax.random.key(0), x)
    epsilon, alpha = THREATS["linf"]
    settings = AttackSettings(alpha=alpha / epsilon, steps=STEPS)
    attack = jax.jit(pgd(model.apply, ThreatModel("linf", epsilon), settings))
    twin = module(torch_pgd.torch_forward(params["params"], torch.device("cpu"), torch.float32))
    theirs, labels = to_torch(x), to_labels(y)
    torch_pgd.check_same(model.apply(params, x), twin(theirs))
    in_torch = torchattacks.PGD(twin, epsilon, alpha, STEPS)
    in_jax = foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=STEPS)
    detail = f"3D ResNet of width 32, four stages of one block, clips {x.shape}"

    def ours(count=CLIPS):
        return attack(jax.random.key(1), params, x[:count], y[:count])

    def foolbox_pgd(count=CLIPS):
        model = functools.partial(resnet().apply, params)
        seen = foolbox.JAXModel(jax.jit(model), bounds=(0, 1))
        wrong = foolbox.criteria.Misclassification(y[:count])
        return functools.partial(in_jax.run, seen, x[:count], wrong, epsilon=epsilon)

    rows = [
        compare(
            f"PGD-{STEPS} / torchattacks",
            TORCHATTACKS_BAR,
            {"jaxmoe": ours, "torchattacks": lambda: in_torch(theirs, labels)},
            f"{detail}, torch {torch.__version__} with {torch.get_num_threads()} threads",
            rounds=ROUNDS,
        ),
        compare(
            f"PGD-{STEPS} / foolbox on JAX, our convolutions",
            FOOLBOX_BAR,
            {"jaxmoe": ours, "foolbox": foolbox_pgd()},
            f"{detail}, the same compiled model, foolbox's `run`",
            rounds=ROUNDS,
        ),
    ]
    jax.block_until_ready(ours(FEW))  # compiled with our convolutions, before they are exchanged
    with native_convolutions():
        rows.append(
            compare(
                f"PGD-{STEPS} / foolbox on JAX, XLA's convolutions",
                FOOLBOX_BAR,
                {"jaxmoe": lambda: ours(FEW), "foolbox": foolbox_pgd(FEW)},
                f"{detail}, {FEW} of them; theirs has XLA's own convolutions, as Flax does",
                rounds=3,
            )
        )
    return rows


@contextlib.contextmanager
def native_convolutions() -> Iterator[None]:
    """What is traced meanwhile convolves as XLA does by itself, which every Flax model does."""

    def native(cpu, other, window):
        del cpu
        return functools.partial(other, window=window)

    # The module: `jaxmoe.models.conv` is also the name of a function.
    with mock.patch.object(sys.modules["jaxmoe.models.conv"], "_by_platform", native):
        yield


def agreement_table(rows: list[Agreement]) -> str:
    """Markdown."""
    lines = ["| | attack | library | agree % | bar % | largest | note |", "|" + " --- |" * 7]
    for row in rows:
        mark = " " if row.bar is None else "✓" if row.share >= row.bar else "✗"
        bar = "–" if row.bar is None else f"≥ {100 * row.bar:.0f}"
        cells = (mark, row.attack, row.library, f"{100 * row.share:.3f}", bar)
        lines.append("| " + " | ".join((*cells, f"{row.largest:.1e}", row.note)) + " |")
    return "\n".join(lines)


def speed_table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| | what | ratio | bar | spread | seconds |", "|" + " --- |" * 6]
    for row in rows:
        mark = "✓" if row.ratio <= row.bar else "✗"
        spread = f"{row.spread[0]:.3f} to {row.spread[1]:.3f}"
        seconds = ", ".join(f"{side} {value:.2f}" for side, value in row.seconds.items())
        cells = (mark, row.name, f"{row.ratio:.3f}", f"≤ {row.bar:.2f}", spread, seconds)
        lines.append("| " + " | ".join(cells) + " |")
    details = [f"{row.name}: {row.detail}" for row in rows]
    return "\n".join([*lines, "", *details, f"measured on {rows[0].machine}"])


def _torch_threads() -> int:
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()
