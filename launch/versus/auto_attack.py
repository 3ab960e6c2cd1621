"""AutoAttack here and its authors' code, on the same weights and images; prints Markdown tables.

python launch/versus/auto_attack.py --data cifar10_lossless_partial.npz --official DIR --output DIR

DIR of --official is a copy of github.com/fra31/auto-attack. Three small CNNs are trained first, a
few minutes in all, and kept in --output. Every comparison is a cell with a JSON file there; a cell
that is done is not done again, so a stopped command goes on. The kinds of cells:

standard, rand: the whole of AutoAttack in that version. Models with noise (rand) do not agree with
  themselves sample by sample, so the official one runs there with two seeds.
curve: the losses of APGD-CE from one start, iterate by iterate.
apgd-ce, apgd-dlr, apgd-t, fab-t, square: one attack alone, on fewer images.

Seconds are wall clock, ours with compilation. Both sides have the same batch size and cores.
"""

import argparse
import hashlib
import json
import pathlib
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import cifar_subject as subjects
import jax
import numpy as np
from cell_tables import tables
from curves import curves
from sides import (
    ATTACKS,
    EPSILONS,
    QUERIES,
    STEPS,
    TARGETS,
    Bench,
    Cell,
    agreement,
    check_files,
    compare,
    official,
    ours,
    summary,
)

import jaxmoe
from jaxmoe.evaluation.engine.part import draw_by_class
from jaxmoe.files import write_text
from jaxmoe.reporting.progress import show_seconds
from jaxmoe.threat import ThreatModel

PACKAGES = ("jax", "flax", "numpy", "torch")
STILL = ("standard", "pgd_at")  # the subjects without noise
CELLS = [
    *(Cell("standard", model, norm) for model in STILL for norm in EPSILONS),
    *(Cell("rand", "pgd_at_dropout", norm) for norm in EPSILONS),
    *(Cell("curve", model, norm) for model in STILL for norm in EPSILONS),
    *(Cell(kind, model, norm) for model in STILL for norm in EPSILONS for kind in ATTACKS),
]


def main() -> None:
    """Runs the cells that are missing, then prints all that are there."""
    options = parse(sys.argv[1:])
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{show_seconds(time.monotonic() - began)}] {line}", flush=True)

    bench = prepare(options, say)
    records = []
    for cell in chosen_cells(options.only):
        path, settings = options.output / f"{cell.name}.json", cell_settings(cell, bench)
        record = None if options.again else kept(path, settings)
        if record is None:
            say(f"{cell.name}: {settings['n']} images")
            record = {"cell": cell._asdict(), "settings": settings, **run_cell(cell, bench)}
            write_text(path, json.dumps(record, indent=1, default=float) + "\n")
        records.append(record)
    print(tables(records))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=pathlib.Path, metavar="FILE.npz")
    parser.add_argument("--official", required=True, type=pathlib.Path, metavar="DIR")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR")
    parser.add_argument(
        "--images", type=int, default=1017, help="of version standard and the curves"
    )
    parser.add_argument("--rand-images", type=int, default=256, help="of version rand")
    parser.add_argument("--attack-images", type=int, default=256, help="of the attacks alone")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="cells that have one of these in their name"
    )
    parser.add_argument("--again", action="store_true", help="also the cells that are done")
    options = parser.parse_args(arguments)
    for name in ("images", "rand_images", "attack_images", "batch_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: {getattr(options, name)} is not at least 1")
    check_files(parser, options)
    if not chosen_cells(options.only):
        parser.error(
            f"--only: no cell has {' or '.join(options.only)} in its name; names are such as "
            f"{CELLS[0].name}, of kinds standard, rand, curve, {', '.join(ATTACKS)}"
        )
    return options


def chosen_cells(only: list[str] | None) -> list[Cell]:
    """The cells with one of the words in their name."""
    return [cell for cell in CELLS if only is None or any(word in cell.name for word in only)]


def prepare(options: argparse.Namespace, say: Callable[[str], None]) -> Bench:
    """Images, the trained subjects and their twins in PyTorch."""
    try:
        import torch  # noqa: F401
    except ImportError:
        sys.exit("torch is not installed; python -m pip install torch")
    sys.path.insert(0, str(options.official))
    options.output.mkdir(parents=True, exist_ok=True)
    images, params, twins = subjects.load_images(options.data), {}, {}
    for name in {cell.model: None for cell in chosen_cells(options.only)}:
        params[name] = subjects.trained(name, images, options.output, options.seed, say)
        twins[name] = subjects.torch_twin(name, params[name])
        difference = subjects.twin_difference(params[name], twins[name], images.x_test)
        clean = subjects.clean_accuracy(name, params[name], images)
        say(f"{name}: clean {clean:.1%}; torch's logits differ by {difference:.1e} at most")
        if not difference < 1e-4:
            sys.exit(f"{name}: the twin in PyTorch is another model; expected less than 1e-4")
    return Bench(images, params, twins, options, say)


def cell_settings(cell: Cell, bench: Bench) -> dict[str, Any]:
    """All that a cell's figures depend on."""
    import torch

    options, package = bench.options, pathlib.Path(jaxmoe.__file__).parent
    wanted = {"rand": options.rand_images} | dict.fromkeys(ATTACKS, options.attack_images)
    return {
        "n": min(wanted.get(cell.kind, options.images), len(bench.images.x_test)),
        "drawn": "by class, seed 0",
        "epsilon": EPSILONS[cell.norm],
        "seed": options.seed,
        "batch_size": options.batch_size,
        "steps": STEPS,
        "targets": TARGETS,
        "queries": QUERIES,
        "threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "weights": weights_digest(bench.params[cell.model]),
        "jaxmoe": files_digest(
            [package / "threat.py", *sorted((package / "attacks").glob("*.py"))]
            + [package / "evaluation" / f"{name}.py" for name in ("auto_attack", "cascade")]
        ),
        "official": files_digest(sorted((options.official / "autoattack").glob("*.py"))),
    }


def weights_digest(params: Any) -> str:
    """Of a subject's params."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()[:16]


def files_digest(files: list[pathlib.Path]) -> str:
    """Of what is in files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def kept(path: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a cell that is done with the same settings."""
    if not path.is_file():
        return None
    record = json.loads(path.read_text("utf-8"))
    return record if record["settings"] == settings else None


def run_cell(cell: Cell, bench: Bench) -> dict[str, Any]:
    """The figures of a cell."""
    drawn = draw_by_class(bench.images.y_test, cell_settings(cell, bench)["n"])
    x, y = bench.images.x_test[drawn], bench.images.y_test[drawn]
    if cell.kind == "curve":
        threat, seed = ThreatModel(cell.norm, EPSILONS[cell.norm]), bench.options.seed
        return curves(cell.model, bench.params[cell.model], threat, x, y, STEPS, seed)
    own = ours(cell, bench, x, y)
    seed = bench.options.seed
    theirs = official(cell, bench, x, y, seed)
    record = compare(cell, bench, own, theirs, x, y)
    if cell.kind == "rand":
        again = official(cell, bench, x, y, seed + 1)
        record["official_again"] = summary(again, x, cell.norm)
        record["agreement_again"] = agreement(own, again)
        record["agreement_official"] = agreement(theirs, again)
    return record


if __name__ == "__main__":
    main()
