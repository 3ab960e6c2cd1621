"""Trains experts and gates on CamVid and attacks them; prints its README's tables.

python launch/studies/camvid/run.py --data DIR --runs runs/camvid [--only deeplab frrn]
    [--images 24] [--lines networks mixtures]

Of each architecture two experts are trained on two parts of the training images (sequence 0016E5;
sequences 0001TP and 0006R0), then four gates on both. Each expert, ensemble and mixture is attacked
at every ε; universal perturbations, and PGD at one ε, are also scored on all the others. One more
is a mixture through whose experts no gradient flows, as the authors' code runs DeepLab's. The test
images are --images of the 233, universal perturbations are made on --training-images of the 367,
both evenly spread. What a folder already holds is not done again.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

import jax

from jaxmoe.evaluation import Row, TransferRow, evaluate_suite, transfer_matrix
from jaxmoe.evaluation.engine.part import take_part_of
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE
from jaxmoe.mixture import component
from jaxmoe.reporting import read_results, write_results, write_transfer
from jaxmoe.reporting.progress import make_progress
from jaxmoe.reporting.results import markdown_table
from jaxmoe.runs import run as runs
from jaxmoe.runs.build import evaluation_loader, evaluation_settings

CONFIGS = pathlib.Path(__file__).parents[3] / "configs" / "segmentation"
ARCHITECTURES = {"deeplab": "DeepLabv3+", "frrn": "FRRN-A"}
SUBSETS = ("sequence=0016E5", "sequence=0001TP,0006R0")
GATES = {
    "simple": ("simple_gate", "none"),
    "simple + conv": ("simple_gate", "conv"),
    "classwise": ("classwise_gate", "none"),
    "classwise + conv": ("classwise_gate", "conv"),
}
# Single networks, by the overrides of an expert's config; both experts are two of its size.
NETWORKS = {
    "one network": {"deeplab": (), "frrn": ()},
    "one network, twice the FLOPs": {
        "deeplab": ("--expert.width", "24", "--expert.features", "48", "--expert.low-level", "24"),
        "frrn": ("--expert.width", "12", "--expert.residual-width", "12"),
    },
}
EXPERT_EPOCHS, GATE_EPOCHS = {"deeplab": 60, "frrn": 40}, 6
PARTS = ("expert0", "expert1", "mean", "max")
BLIND = "simple, no gradient"  # what an attack leaves that cannot see
MODELS = (*PARTS, *GATES, BLIND)
ATTACKS = ("fgsm", "pgd", "pgd-standing")
LINES = ("networks", "mixtures")
UNIVERSAL = "universal"
EPOCHS = 1  # of universal perturbations, over the training images
TRANSFERRED = "pgd"
EPSILON = 0.03  # of the tables of transfer


def main() -> None:
    """Runs what is missing, then prints the tables."""
    options = parse(sys.argv[1:])
    for name in options.only:
        train(name, options)
        attack(name, options)
    for name in options.only:
        folder, rows, shown = results_of(name, options), [], []
        if "mixtures" in options.lines:
            found = json.loads((transfer_of(folder, options) / "transfer.json").read_text("utf-8"))
            rows, shown = [TransferRow(**row) for row in found], [*MODELS]
        shown += NETWORKS if "networks" in options.lines else ()
        own = {model: read_results(folder / model) for model in shown}
        print(f"{ARCHITECTURES[name]}\n\n{white_box(own, rows)}\n")
        for made in (TRANSFERRED, UNIVERSAL) if rows else ():
            print(f"{transfer(rows, made)}\n")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with train, trainannot, …")
    parser.add_argument("--runs", default="runs/camvid", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--images", default=24, type=int, help="test images to attack")
    parser.add_argument("--training-images", default=120, type=int, help="for universal attacks")
    options = parser.parse_args(arguments)
    if not (pathlib.Path(options.data) / "trainannot").is_dir():
        parser.error(f"--data: {options.data} has no trainannot")
    for name in ("images", "training_images"):
        if getattr(options, name) < 1:
            option = "--" + name.replace("_", "-")
            parser.error(f"{option}: {getattr(options, name)}; expected at least 1")
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


def train(name: str, options: argparse.Namespace) -> None:
    """The single networks, the experts and the gates of an architecture."""
    if "networks" in options.lines:
        epochs = str(EXPERT_EPOCHS[name] + GATE_EPOCHS)
        for title, changed in NETWORKS.items():
            longer = ("--training.epochs", epochs, *changed[name])
            run(f"{name}_expert", folder_of(name, title, options), options, *longer)
    if "mixtures" not in options.lines:
        return
    experts = [options.runs / f"{name}_expert{number}" for number in range(len(SUBSETS))]
    for expert, subset in zip(experts, SUBSETS, strict=True):
        run(f"{name}_expert", expert, options, "--data.subset", subset)
    for title, (gate, head) in GATES.items():
        sources = ["--training.initialize-experts-from", *map(str, experts)]
        kind = ["--router.name", gate, "--mixture.head", head]
        run(f"{name}_gate", folder_of(name, title, options), options, *sources, *kind)


def folder_of(name: str, title: str, options: argparse.Namespace) -> pathlib.Path:
    """Where the mixture with a gate is, or a single network."""
    return options.runs / f"{name}_{re.sub('[ +,]+', '_', title)}"


def run(config: str, folder: pathlib.Path, options: argparse.Namespace, *overrides: str) -> None:
    """`jaxmoe train` of one run, which resumes it, or refuses a folder of another config."""
    command = [sys.executable, "-m", "jaxmoe", "train", str(CONFIGS / f"camvid_{config}.py")]
    command += ["--data.directory", options.data, "--run.directory", str(folder), *overrides]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)  # it has said why


def results_of(name: str, options: argparse.Namespace) -> pathlib.Path:
    """Where the attacks on an architecture's models are, of so many images."""
    return options.runs / f"{name}_attacked_{options.images}"


def transfer_of(folder: pathlib.Path, options: argparse.Namespace) -> pathlib.Path:
    """Where, in that folder, attacks are that were scored on other models too."""
    return folder / f"transfer_{options.training_images}"


def attack(name: str, options: argparse.Namespace) -> None:
    """Writes what is missing of the results of each model, and of the transfer matrix."""
    models, alone = {}, {}
    for title in NETWORKS if "networks" in options.lines else ():
        found = runs.load(folder_of(name, title, options))
        alone[title] = found.mixture, found.params
    for gate in GATES if "mixtures" in options.lines else ():
        found = runs.load(folder_of(name, gate, options))
        for part in PARTS if not models else ():
            models[part] = component(found.mixture, part), found.params
        models[gate] = found.mixture, found.params
    config, folder = found.experiment, results_of(name, options)
    size = config.evaluation.batch_size
    test = evaluation_loader(take_part_of(found.dataset.test, options.images), config.data, size)
    learned = take_part_of(found.dataset.train, options.training_images)
    training = evaluation_loader(learned, config.data, size)
    given = {"settings": evaluation_settings(config), "seed": config.evaluation.seed}
    with make_progress() as progress:
        given |= {"progress": progress.evaluation, "say": progress.say}
        for model, (mixture, params) in (alone | models | blind(models)).items():
            output = folder / model
            if (output / "results.md").is_file():  # is written last
                continue
            output.mkdir(parents=True, exist_ok=True)
            progress.say(f"{ARCHITECTURES[name]}: {model}")
            result = evaluate_suite(
                mixture,
                params,
                lambda: test,
                attacks=ATTACKS,
                epsilons=config.evaluation.epsilons,
                probe_batches=1,
                journal=output / "evaluation.journal",
                **given,
            )
            write_results(result.rows, output, checks=result.checks, notes=result.notes)
            (output / "evaluation.journal").unlink()
        folder = transfer_of(folder, options)
        if not models or (folder / "transfer.md").is_file():
            return
        folder.mkdir(exist_ok=True)
        rows = []
        for made, epsilons in ((TRANSFERRED, (EPSILON,)), (UNIVERSAL, config.evaluation.epsilons)):
            result = transfer_matrix(
                models,
                models,
                lambda: test,
                attacks=(made,),
                epsilons=epsilons,
                training_batches=dict.fromkeys(models, lambda: training),
                epochs=EPOCHS,
                journal=folder / f"{made}.journal",
                **given,
            )
            rows += result.rows
    write_transfer(rows, folder)
    for made in (TRANSFERRED, UNIVERSAL):
        (folder / f"{made}.journal").unlink()


def blind(models: dict) -> dict:
    """A mixture whose experts, and so the features of its gate, have no gradient in the input."""
    if "simple" not in models:
        return {}
    mixture, params = models["simple"]
    return {BLIND: (lambda p, x: mixture.apply(p, jax.lax.stop_gradient(x)), params)}


def white_box(own: dict[str, list[Row]], rows: list[TransferRow]) -> str:
    """Markdown: mIoU of each model when clean and under each attack on itself, ε by ε."""
    first = next(row for row in next(iter(own.values())) if row.attack in ATTACKS)
    epsilons = sorted({row.epsilon for found in own.values() for row in found} - {0.0})
    titles = ["mIoU %", CLEAN, *ATTACKS, WORST_CASE, UNIVERSAL]
    lines = []
    for model, found in own.items():
        iou = {(row.attack, row.epsilon): row.mean_iou for row in found}
        diagonal = [row for row in rows if row.source == row.target == model]
        iou |= {(UNIVERSAL, r.epsilon): r.mean_iou for r in diagonal if r.attack == UNIVERSAL}
        cells = [
            " / ".join(f"{100 * iou[attack, e]:.1f}" for e in epsilons if (attack, e) in iou)
            for attack in (*ATTACKS, WORST_CASE, UNIVERSAL)
        ]
        lines.append([model, f"{100 * iou[CLEAN, 0.0]:.1f}", *cells])
    note = (
        f"ε = {' / '.join(f'{e:g}' for e in epsilons)}, {first.norm}, n = {first.n} test images, "
        f"seed {first.seed}. Worst case: of each image the attack that leaves the fewest right."
    )
    return "\n".join([*markdown_table(titles, lines), "", note])


def transfer(rows: list[TransferRow], attack: str) -> str:
    """Markdown: mIoU of each target under an attack made on each source."""
    found = {(r.source, r.target): r for r in rows if (r.attack, r.epsilon) == (attack, EPSILON)}
    targets = list(dict.fromkeys(target for _, target in found))
    lines = []
    for source in dict.fromkeys(source for source, _ in found):
        cells = [found.get((source, target)) for target in targets]
        lines.append([source, *(f"{100 * cell.mean_iou:.1f}" if cell else "" for cell in cells)])
    table = markdown_table(["made on / scored on", *targets], lines)
    return "\n".join([*table, "", f"mIoU %, {attack}, ε = {EPSILON:g}."])


if __name__ == "__main__":
    main()
