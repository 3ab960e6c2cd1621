"""Trains and evaluates the UT-Interaction configs over several seeds; prints its README's tables.

python launch/studies/ut_interaction/run.py --data DIR --runs runs/ut_interaction [--seeds 0 1 2]
    [--recipes single at_s]

Each seed trains a standard mixture, starts the three adversarial recipes from it, and evaluates all
four under every attack at ε = 2, 4 and 8 /255. Beside them stands one network of an expert's size
at equal cost: `single` takes as many gradients as `standard`, AT-S (`at_s`) starts from it and is
trained as AT-M is. It has no router to attack. Seed s tests on a fold of its own, every fifth of
the twenty sequences, and trains on the others: seed 0 has the manifest's split, and the seeds
together judge three times as many clips. What a folder already holds is not done
again, so a stopped command goes on.
"""

import argparse
import csv
import json
import pathlib
import re
import statistics
import subprocess
import sys
from typing import NamedTuple

from jaxmoe.training import Checkpoints


class Line(NamedTuple):
    """A column of the table: how a run is trained and attacked."""

    config: str
    start: str | None = None  # the run that it starts from
    overrides: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()  # instead of the config's


_ONE = ("--mixture.experts", "1")
# 60 epochs of the shared expert, 10 of all four experts, 12 of one a clip.
_CLEAN = ("--training.shared-epochs", "0", "--training.dense-epochs", "0")
_CLEAN += ("--training.epochs", "112")
_OF_ONE = ("fgsm", "pgd", "mi-fgsm", "tla-m")
RECIPES = {
    "standard": Line("standard"),
    "at_m": Line("at_m", "standard"),
    "tlat": Line("tlat", "standard"),
    "j_tlat": Line("j_tlat", "standard"),
    "single": Line("standard", None, _ONE + _CLEAN, _OF_ONE),
    "at_s": Line("at_m", "single", _ONE, _OF_ONE),
}
CONFIGS = pathlib.Path(__file__).parents[3] / "configs" / "video"
FOLDS = 5


def main() -> None:
    """Runs what is missing, then prints one table for each ε."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with manifest.csv")
    parser.add_argument("--runs", default="runs/ut_interaction", type=pathlib.Path)
    parser.add_argument("--seeds", nargs="+", default=[0, 1, 2], type=int)
    parser.add_argument("--recipes", nargs="+", choices=tuple(RECIPES), default=list(RECIPES))
    options = parser.parse_args()
    if not (pathlib.Path(options.data) / "manifest.csv").is_file():
        parser.error(f"--data: {options.data} has no manifest.csv")
    options.runs.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        manifest = _write_fold(pathlib.Path(options.data), options.runs, seed)
        for recipe in options.recipes:
            folder, line = options.runs / f"{recipe}_{seed}", RECIPES[recipe]
            for run in filter(None, (line.start, recipe)):
                _train(run, seed, options.runs, options.data, manifest)
            if not _is_evaluated(folder):
                given = ("--attacks", *line.attacks) if line.attacks else ()
                _jaxmoe("evaluate", str(folder), *given)
    print(tables(options.runs, options.seeds, options.recipes))


def tables(runs: pathlib.Path, seeds: list[int], recipes: list[str]) -> str:
    """Markdown: mean robust accuracy over the seeds, an attack a line, a recipe a column."""
    found = {
        (recipe, seed, row["attack"], row["epsilon"]): row
        for recipe in recipes
        for seed in seeds
        for row in json.loads((runs / f"{recipe}_{seed}" / "results.json").read_text("utf-8"))
    }
    attacks = list(dict.fromkeys(attack for _, _, attack, _ in found))
    epsilons = sorted({epsilon for *_, epsilon in found} - {0})
    spreads: dict[str, list[float]] = {recipe: [] for recipe in recipes}

    def cell(recipe: str, attack: str) -> str:
        if not any((recipe, seeds[0], attack, epsilon) in found for epsilon in (0, *epsilons)):
            return "–"
        means = []
        for epsilon in [0] if attack == "clean" else epsilons:
            rows = [found[recipe, seed, attack, epsilon] for seed in seeds]
            values = [100 * row["robust_accuracy"] for row in rows]
            means.append(f"{statistics.mean(values):.1f}")
            spreads[recipe].append(statistics.pstdev(values))
        return " / ".join(means)

    def line(name: str, cells: list[str]) -> str:
        return f"| {name} | " + " | ".join(cells) + " |"

    minutes = [
        statistics.mean(_position(runs / f"{recipe}_{seed}")["seconds"] for seed in seeds) / 60
        for recipe in recipes
    ]
    lines = [
        line("%", recipes),
        line("---", ["---"] * len(recipes)),
        *(line(attack, [cell(recipe, attack) for recipe in recipes]) for attack in attacks),
        line("minutes", [f"{value:.1f}" for value in minutes]),
        line("spread", [f"{statistics.mean(spreads[recipe]):.1f}" for recipe in recipes]),
    ]
    clips = " + ".join(str(found[recipes[0], seed, "clean", 0]["n"]) for seed in seeds)
    radii = ", ".join(f"{epsilon * 255:.0f}" for epsilon in epsilons)
    lines += [
        "",
        f"ε = {radii} /255. Means over seeds {', '.join(map(str, seeds))}, n = {clips} clips.",
        "spread: standard deviation over the seeds, mean of the lines. minutes: of training, those",
        "of adversarial recipes from the standard run on.",
    ]
    return "\n".join(lines)


def _write_fold(data: pathlib.Path, runs: pathlib.Path, seed: int) -> pathlib.Path:
    """The manifest with the sequences of a seed's fold as its test split."""
    with (data / "manifest.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        sys.exit("--data: manifest.csv lists no video")
    for row in rows:
        found = re.search(r"seq(\d+)", row.get("path", ""))
        if found is None:
            sys.exit(f"--data: {row.get('path')} in manifest.csv names no sequence, such as seq12")
        sequence = int(found[1])
        row["split"] = "test" if (sequence + seed) % FOLDS == 0 else "train"
    fold = runs / f"fold_{seed % FOLDS}.csv"
    with fold.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return fold


def _train(recipe: str, seed: int, runs: pathlib.Path, data: str, manifest: pathlib.Path) -> None:
    folder, line = runs / f"{recipe}_{seed}", RECIPES[recipe]
    if _position(folder).get("finished"):
        return
    arguments = [str(CONFIGS / f"ut_interaction_{line.config}.py"), "--data.directory", data]
    arguments += ["--data.manifest", str(manifest.resolve()), *line.overrides]
    arguments += ["--run.directory", str(folder), "--run.seed", str(seed)]
    if line.start is not None:
        arguments += ["--training.initialize-from", str(runs / f"{line.start}_{seed}")]
    _jaxmoe("train", *arguments)


def _is_evaluated(run: pathlib.Path) -> bool:
    # An evaluation that was stopped leaves its journal beside what it had.
    return (run / "evaluation.json").is_file() and not (run / "evaluation.journal").is_file()


def _position(run: pathlib.Path) -> dict:
    """Where a run's training stands, with its seconds so far; empty before its first checkpoint."""
    return Checkpoints(run).position("latest") or {}


def _jaxmoe(*arguments: str) -> None:
    code = subprocess.run([sys.executable, "-m", "jaxmoe", *arguments], check=False).returncode
    if code:
        sys.exit(code)  # it has said why


if __name__ == "__main__":
    main()
