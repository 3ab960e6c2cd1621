"""Trains experts and gates on CamVid and attacks them; prints the README's tables.

python launch/camvid.py --data DIR --runs runs/camvid [--only deeplab frrn] [--images 30]

Of each architecture two experts are trained on two parts of the training images (sequence 0016E5;
sequences 0001TP and 0006R0), then four gates on both. Attacks are made on each expert, ensemble and
mixture, and scored on all of them: the diagonal is the white box. The test images are --images of
the 233, evenly spread. What a folder already holds is not done again.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np

from jaxmoe import run as runs
from jaxmoe.data import ClipSource
from jaxmoe.evaluation import TransferRow, transfer_matrix
from jaxmoe.experiment import evaluation_loader, evaluation_settings
from jaxmoe.mixture import component
from jaxmoe.reporting import write_transfer
from jaxmoe.reporting.progress import make_progress
from jaxmoe.reporting.results import markdown_table

CONFIGS = pathlib.Path(__file__).parent.parent / "configs" / "segmentation"
ARCHITECTURES = {"deeplab": "DeepLabv3+", "frrn": "FRRN-A"}
SUBSETS = ("sequence=0016E5", "sequence=0001TP,0006R0")
GATES = {
    "simple": ("simple_gate", "none"),
    "simple + conv": ("simple_gate", "conv"),
    "classwise": ("classwise_gate", "none"),
    "classwise + conv": ("classwise_gate", "conv"),
}
PARTS = ("expert0", "expert1", "mean", "max")
ATTACKS = ("fgsm", "pgd", "pgd-standing", "universal")
EPOCHS = 1  # of universal perturbations, over the training images
TRANSFER = ("pgd", 0.03)  # the attack and ε of the transfer table


def main() -> None:
    """Runs what is missing, then prints the tables."""
    options = parse(sys.argv[1:])
    for name in options.only:
        train(name, options)
        folder = options.runs / f"{name}_transfer"
        if not (folder / "transfer.json").is_file():
            attack(name, folder, options)
    for name in options.only:
        file = options.runs / f"{name}_transfer" / "transfer.json"
        rows = [TransferRow(**row) for row in json.loads(file.read_text("utf-8"))]
        print(f"{ARCHITECTURES[name]}\n\n{white_box(rows)}\n\n{transfer(rows)}\n")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with train, trainannot, …")
    parser.add_argument("--runs", default="runs/camvid", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--images", default=30, type=int, help="test images to attack")
    options = parser.parse_args(arguments)
    if not (pathlib.Path(options.data) / "trainannot").is_dir():
        parser.error(f"--data: {options.data} has no trainannot")
    if options.images < 1:
        parser.error(f"--images: {options.images}; expected at least 1")
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


def train(name: str, options: argparse.Namespace) -> None:
    """The experts and the gates of an architecture."""
    experts = [options.runs / f"{name}_expert{number}" for number in range(len(SUBSETS))]
    for expert, subset in zip(experts, SUBSETS, strict=True):
        run(f"{name}_expert", expert, options, "--data.subset", subset)
    for title, (gate, head) in GATES.items():
        sources = ["--training.initialize-experts-from", *map(str, experts)]
        kind = ["--router.name", gate, "--mixture.head", head]
        run(f"{name}_gate", folder_of(name, title, options), options, *sources, *kind)


def folder_of(name: str, gate: str, options: argparse.Namespace) -> pathlib.Path:
    """Where the mixture with a gate is."""
    return options.runs / f"{name}_{gate.replace(' + ', '_')}"


def run(config: str, folder: pathlib.Path, options: argparse.Namespace, *overrides: str) -> None:
    """`jaxmoe train` of one run, which resumes it, or refuses a folder of another config."""
    command = [sys.executable, "-m", "jaxmoe", "train", str(CONFIGS / f"camvid_{config}.py")]
    command += ["--data.directory", options.data, "--run.directory", str(folder), *overrides]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)  # it has said why


def attack(name: str, folder: pathlib.Path, options: argparse.Namespace) -> None:
    """Writes the transfer matrix over experts, ensembles and mixtures of an architecture."""
    models = {}
    for gate in GATES:
        found = runs.load(folder_of(name, gate, options))
        for part in PARTS if not models else ():
            models[part] = component(found.mixture, part), found.params
        models[gate] = found.mixture, found.params
    config = found.experiment
    size = config.evaluation.batch_size
    test = evaluation_loader(spread(found.dataset.test, options.images), config.data, size)
    training = evaluation_loader(found.dataset.train, config.data, size)
    folder.mkdir(parents=True, exist_ok=True)
    with make_progress() as progress:
        result = transfer_matrix(
            models,
            models,
            lambda: test,
            attacks=ATTACKS,
            epsilons=config.evaluation.epsilons,
            settings=evaluation_settings(config),
            seed=config.evaluation.seed,
            training_batches=dict.fromkeys(models, lambda: training),
            epochs=EPOCHS,
            journal=folder / "transfer.journal",
            progress=progress.evaluation,
            say=progress.say,
        )
    write_transfer(result.rows, folder)
    (folder / "transfer.journal").unlink()


def spread(source: ClipSource, count: int) -> ClipSource:
    """So many of a split's images, evenly spread; all where there are no more."""
    places = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)
    return source.take([source.records[place] for place in places])


def white_box(rows: list[TransferRow]) -> str:
    """Markdown: mIoU of each model when clean and under each attack on itself, ε by ε."""
    own = [row for row in rows if row.source == row.target]
    epsilons = list(dict.fromkeys(row.epsilon for row in own))
    attacks = list(dict.fromkeys(row.attack for row in own))
    lines = []
    for target in dict.fromkeys(row.target for row in own):
        found = {(r.attack, r.epsilon): r for r in own if r.target == target}
        clean = next(iter(found.values())).clean_iou
        cells = [
            " / ".join(f"{100 * found[attack, e].mean_iou:.1f}" for e in epsilons)
            for attack in attacks
        ]
        lines.append([target, f"{100 * clean:.1f}", *cells])
    first = own[0]
    note = (
        f"ε = {' / '.join(f'{e:g}' for e in epsilons)}, {first.norm}, n = {first.n} test images, "
        f"seed {first.seed}."
    )
    return "\n".join([*markdown_table(["mIoU %", "clean", *attacks], lines), "", note])


def transfer(rows: list[TransferRow]) -> str:
    """Markdown: mIoU of each target under an attack made on each source."""
    attack, epsilon = TRANSFER
    found = {(r.source, r.target): r for r in rows if (r.attack, r.epsilon) == TRANSFER}
    targets = list(dict.fromkeys(target for _, target in found))
    lines = []
    for source in dict.fromkeys(source for source, _ in found):
        cells = [found.get((source, target)) for target in targets]
        lines.append([source, *(f"{100 * cell.mean_iou:.1f}" if cell else "" for cell in cells)])
    table = markdown_table(["made on / scored on", *targets], lines)
    return "\n".join([*table, "", f"mIoU %, {attack}, ε = {epsilon:g}."])


if __name__ == "__main__":
    main()
