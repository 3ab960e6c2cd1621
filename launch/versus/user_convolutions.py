"""AutoAttack on networks with users' own convolutions, here and in its authors' code, in CPU time.

python launch/versus/user_convolutions.py --data cifar10_lossless_partial.npz --official DIR
    --output DIR [--libraries lax linen nnx equinox] [--native]

DIR of --official is a copy of github.com/fra31/auto-attack. The networks are those of
`user_networks.py`, trained first, some minutes, and kept in --output. Both sides are held to one
core, and their seconds are those of the CPU, all threads together, so that other programs on the
machine change little. Ours runs twice: with compilation, then again with the same programs.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

if __name__ == "__main__":  # before JAX and PyTorch count the cores
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import cifar_subject as subjects
import numpy as np
import user_networks
from sides import check_files

from jaxmoe import evaluation
from jaxmoe.evaluation.engine.programs import Programs
from jaxmoe.models import native_convolutions
from jaxmoe.reporting.progress import show_seconds

EPOCHS = {"resnet20": 3, "resnet2b": 12}
STEPS = {"resnet20": 0, "resnet2b": 2}  # as published: one is not robust, the other is
COLUMNS = (
    "network",
    "library",
    "ε · 255",
    "n",
    "ours %",
    "official %",
    "agreement %",
    "ours CPU s",
    "without compilation",
    "official CPU s",
    "ours / official",
    "without compilation / official",
)


def main() -> None:
    """Prints a table, and keeps it as JSON."""
    options = parse(sys.argv[1:])
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{show_seconds(time.monotonic() - began)}] {line}", flush=True)

    try:
        import torch
    except ImportError:
        sys.exit("torch is not installed; python -m pip install torch")
    torch.set_num_threads(1)
    sys.path.insert(0, str(options.official))
    images, rows = subjects.load_images(options.data), []
    x, y = images.x_test[: options.images], images.y_test[: options.images]
    for name in options.networks:
        params = trained(name, images, options.output, say)
        epsilon = options.epsilon / 255
        theirs = official(user_networks.torch_twin(name, params), epsilon, x, y, options)
        say(f"{name}: the official code took {theirs['seconds']:.1f} CPU s")
        for library in options.libraries:
            own = ours(name, library, params, epsilon, x, y, options)
            rows.append(row(name, library, epsilon, own, theirs))
            say(f"{name} by {library}: " + ", ".join(rows[-1][7:]))
    print(table(rows))
    record = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    path = options.output / "user_convolutions.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=pathlib.Path, metavar="FILE.npz")
    parser.add_argument("--official", required=True, type=pathlib.Path, metavar="DIR")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR")
    networks, libraries = tuple(user_networks.NETWORKS), tuple(user_networks.LIBRARIES)
    parser.add_argument("--networks", nargs="+", choices=networks, default=networks)
    parser.add_argument("--libraries", nargs="+", choices=libraries, default=("linen", "equinox"))
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epsilon", type=float, default=8, help="in grey levels")
    parser.add_argument("--native", action="store_true", help="keep XLA's own convolutions")
    options = parser.parse_args(arguments)
    check_files(parser, options)
    for name in ("images", "batch_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: {getattr(options, name)} is not at least 1")
    options.output.mkdir(parents=True, exist_ok=True)
    return options


def trained(
    name: str, images: subjects.Images, folder: pathlib.Path, say: Callable[[str], None]
) -> user_networks.Params:
    """The params in `folder`, trained first where there are none."""
    path = folder / f"user_{name}.npz"
    if not path.is_file():
        params = user_networks.train(name, images, EPOCHS[name], STEPS[name], say)
        flat = {
            f"{layer}/{key}": v for layer, leaves in params.items() for key, v in leaves.items()
        }
        partial = path.with_suffix(".part.npz")  # a stopped command leaves no half of a file
        np.savez(partial, **flat)
        partial.rename(path)
    params = {}
    with np.load(path) as arrays:
        for key in arrays:
            layer, leaf = key.split("/")
            params.setdefault(layer, {})[leaf] = arrays[key]
    return params


def ours(
    name: str,
    library: str,
    params: user_networks.Params,
    epsilon: float,
    x: np.ndarray,
    y: np.ndarray,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Our robust images, and CPU seconds with compilation and without."""
    model = functools.partial(user_networks.apply, name, library)
    programs = Programs(native_convolutions(model) if options.native else model)
    attack = functools.partial(
        evaluation.auto_attack,
        programs.model,
        params,
        x,
        y,
        epsilon=epsilon,
        batch_size=options.batch_size,
        programs=programs,
    )
    start = time.process_time()
    first = attack()
    middle = time.process_time()
    again = attack()
    end = time.process_time()
    np.testing.assert_array_equal(first.robust, again.robust)
    return {"robust": first.robust, "seconds": middle - start, "again": end - middle}


def official(
    twin: Any, epsilon: float, x: np.ndarray, y: np.ndarray, options: argparse.Namespace
) -> dict[str, Any]:
    """The robust images of the authors' code, and its CPU seconds."""
    import torch
    from autoattack import AutoAttack

    torch.manual_seed(0)
    adversary = AutoAttack(
        twin, norm="Linf", eps=epsilon, seed=0, verbose=False, version="standard", device="cpu"
    )
    images, labels = subjects.to_torch(x), torch.tensor(y).long()
    start = time.process_time()
    _, found = adversary.run_standard_evaluation(
        images, labels, bs=options.batch_size, return_labels=True
    )
    return {"robust": found.numpy() == y, "seconds": time.process_time() - start}


def row(
    name: str, library: str, epsilon: float, own: dict[str, Any], theirs: dict[str, Any]
) -> list[str]:
    """One line of the table."""
    agreement = np.mean(own["robust"] == theirs["robust"])
    return [
        name,
        library,
        f"{255 * epsilon:g}",
        str(len(own["robust"])),
        *(f"{100 * np.mean(v):.1f}" for v in (own["robust"], theirs["robust"], agreement)),
        *(f"{v:.1f}" for v in (own["seconds"], own["again"], theirs["seconds"])),
        *(f"{own[key] / theirs['seconds']:.2f}" for key in ("seconds", "again")),
    ]


def table(rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
