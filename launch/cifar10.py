"""Trains and evaluates the small CIFAR-10 configs over several seeds; prints the README's tables.

python launch/cifar10.py --data FILE.npz --runs runs/cifar10 [--seeds 0 1 2]

Each seed trains a standard mixture, starts PGD-AT and RT-ER (β = 2 and 6) from it and JTDMoE from
it and RT-ER, trains RT-ER as its authors' code does too, and evaluates all: clean (SA), PGD (RA),
attacks on the experts (RA-E) and on the router (RA-R), end to end and isolated, and AutoAttack.
Dual models of the standard run and RT-ER's without further training, and JTDMoE's, are evaluated
over α. What a folder already holds is not done again.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from typing import NamedTuple

from jaxmoe import run as runs
from jaxmoe.evaluation import Programs, evaluate_suite
from jaxmoe.evaluation.metrics import accuracy
from jaxmoe.experiment import evaluation_loader, evaluation_settings
from jaxmoe.mixture import dual_mixture, with_alpha
from jaxmoe.reporting.results import markdown_table
from jaxmoe.run_folder import is_finished
from jaxmoe.training import Checkpoints

CONFIGS = pathlib.Path(__file__).parent.parent / "configs" / "image"
ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ATTACKS = ("pgd", "pgd-e", "pgd-r", "auto-attack")


class Line(NamedTuple):
    """A line of the table: how a run is trained."""

    title: str
    config: str
    start: str | None = None  # the run that it starts from
    standard: str | None = None  # of a dual model, the standard one's
    overrides: tuple[str, ...] = ()


LINES = {
    "standard": Line("standard", "standard"),
    "at": Line("PGD-AT", "at", "standard"),
    "rt_er_2": Line("RT-ER, β = 2", "rt_er", "standard", None, ("--training.beta", "2")),
    "rt_er_6": Line("RT-ER, β = 6", "rt_er", "standard"),
    "jtdmoe": Line("JTDMoE, α = 0.7", "jtdmoe", "rt_er_6", "standard"),
    # What the authors' released code does where it differs from their text.
    "dead_router": Line(
        "RT-ER, β = 6, dead router", "rt_er", "standard", None, ("--mixture.combine", "none")
    ),
    "frozen_norm": Line(
        "RT-ER, β = 6, frozen normalisation", "rt_er", None, None, ("--expert.norm", "frozen_batch")
    ),
}
CURVES = {"dual": "RT-ER, β = 6, beside standard", "jtdmoe": "JTDMoE"}


def main() -> None:
    """Runs what is missing, then prints the tables."""
    options = parse(sys.argv[1:])
    for seed in options.seeds:
        for name, line in LINES.items():
            folder = options.runs / f"{name}_{seed}"
            train(line, seed, folder, options)
            if not (folder / "evaluation.json").is_file():  # what is written last
                jaxmoe("evaluate", str(folder), "--attacks", *ATTACKS)
        for name in CURVES:
            file = options.runs / f"curve_{name}_{seed}.json"
            if not file.is_file():
                points = curve(name, seed, options.runs)
                partial = file.with_suffix(".partial")
                partial.write_text(json.dumps(points, indent=1) + "\n", "utf-8")
                partial.replace(file)
    print(table(options.runs, options.seeds), end="\n\n")
    print(curves(options.runs, options.seeds))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the .npz file")
    parser.add_argument("--runs", default="runs/cifar10", type=pathlib.Path)
    parser.add_argument("--seeds", nargs="+", default=[0, 1, 2], type=int)
    options = parser.parse_args(arguments)
    if not pathlib.Path(options.data).is_file():
        parser.error(f"--data: {options.data} is no file")
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


def train(line: Line, seed: int, folder: pathlib.Path, options: argparse.Namespace) -> None:
    """`jaxmoe train` of one run, if it was not trained to its end."""
    if is_finished(folder):
        return
    arguments = [str(CONFIGS / f"cifar10_small_{line.config}.py"), "--data.directory", options.data]
    arguments += ["--run.directory", str(folder), "--run.seed", str(seed), *line.overrides]
    for field, source in (
        ("initialize-from", line.start),
        ("initialize-standard-from", line.standard),
    ):
        if source is not None:
            arguments += [f"--training.{field}", str(options.runs / f"{source}_{seed}")]
    jaxmoe("train", *arguments)


def curve(name: str, seed: int, folder: pathlib.Path) -> list[dict]:
    """Clean and PGD accuracy of a dual model at each α, one compilation for all."""
    if name == "dual":
        robust = runs.load(folder / f"rt_er_6_{seed}")
        standard = runs.load(folder / f"standard_{seed}")
        model = dual_mixture(standard.mixture, robust.mixture, ALPHAS[0])
        trained, params = robust, {**robust.params, "standard": standard.params}
    else:
        trained = runs.load(folder / f"{name}_{seed}")
        model, params = trained.mixture, trained.params
    config = trained.experiment
    loader = evaluation_loader(trained.dataset.test, config.data, config.evaluation.batch_size)
    programs, points = Programs(model, config.threat.norm, accuracy), []
    for alpha in ALPHAS:
        result = evaluate_suite(
            model,
            with_alpha(params, alpha),
            lambda: loader,
            attacks=["pgd"],
            epsilons=config.evaluation.epsilons,
            settings=evaluation_settings(config),
            norm=config.threat.norm,
            seed=config.evaluation.seed,
            programs=programs,
            probe_batches=0,
        )
        clean, robust_row = result.row("clean"), result.row("pgd", config.evaluation.epsilons[0])
        points.append(
            {
                "alpha": alpha,
                "clean": clean.robust_accuracy,
                "pgd": robust_row.robust_accuracy,
                "n": clean.n,
            }
        )
        print(f"{name}, seed {seed}, α = {alpha}: {points[-1]}", flush=True)
    return points


def table(folder: pathlib.Path, seeds: list[int]) -> str:
    """Markdown: means and standard deviations over the seeds, a run a line."""
    titles = ["%", "SA", "RA", "RA-E", "RA-E isolated", "RA-R", "RA-R isolated", "AutoAttack"]
    cells = [
        ("clean", "robust_accuracy"),
        ("pgd", "robust_accuracy"),
        ("pgd-e", "robust_accuracy"),
        ("pgd-e", "isolated_accuracy"),
        ("pgd-r", "robust_accuracy"),
        ("pgd-r", "isolated_accuracy"),
        ("auto-attack", "robust_accuracy"),
    ]
    lines = []
    for name, line in LINES.items():
        found = [read(folder / f"{name}_{seed}") for seed in seeds]
        minutes = [
            Checkpoints(folder / f"{name}_{seed}").position("latest")["seconds"] / 60
            for seed in seeds
        ]
        values = [spread([100 * rows[a][field] for rows in found]) for a, field in cells]
        lines.append([line.title, *values, f"{statistics.mean(minutes):.1f}"])
    first = read(folder / f"standard_{seeds[0]}")["pgd"]
    note = (
        f"n = {first['n']}, seeds {', '.join(map(str, seeds))}: mean ± standard deviation. "
        f"ε = {first['epsilon'] * 255:g}/255, {first['norm']}, {first['steps']} steps of PGD. "
        "Minutes: of training, behind the runs that it starts from."
    )
    return "\n".join([*markdown_table([*titles, "minutes"], lines), "", note])


def curves(folder: pathlib.Path, seeds: list[int]) -> str:
    """Markdown: clean / PGD accuracy over α, means over the seeds."""
    lines = []
    for name, title in CURVES.items():
        found = [
            json.loads((folder / f"curve_{name}_{seed}.json").read_text("utf-8")) for seed in seeds
        ]
        cells = [
            " / ".join(
                f"{100 * statistics.mean(points[i][kind] for points in found):.1f}"
                for kind in ("clean", "pgd")
            )
            for i in range(len(ALPHAS))
        ]
        lines.append([title, *cells])
    titles = ["clean / PGD %", *(f"α = {alpha}" for alpha in ALPHAS)]
    return "\n".join(markdown_table(titles, lines))


def read(run: pathlib.Path) -> dict[str, dict]:
    """Rows of a run's only ε by attack, and the clean one."""
    rows = json.loads((run / "results.json").read_text("utf-8"))
    return {row["attack"]: row for row in rows}


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f}"


def jaxmoe(*arguments: str) -> None:
    """One command; leaves with its exit code where it fails."""
    code = subprocess.run([sys.executable, "-m", "jaxmoe", *arguments], check=False).returncode
    if code:
        sys.exit(code)  # it has said why


if __name__ == "__main__":
    main()
