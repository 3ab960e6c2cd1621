"""Trains and evaluates the UT-Interaction configs over several seeds; prints the README's tables.

python launch/ut_interaction.py --data DIR --runs runs/ut_interaction [--seeds 0 1 2]

Each seed trains a standard mixture, starts the three adversarial recipes from it, and evaluates all
four under every attack at ε = 2, 4 and 8 /255. What a folder already holds is not done again, so a
stopped command goes on.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

RECIPES = ("standard", "at_m", "tlat", "j_tlat")
CONFIGS = pathlib.Path(__file__).parent.parent / "configs" / "video"


def main() -> None:
    """Runs what is missing, then prints one table for each ε."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with manifest.csv")
    parser.add_argument("--runs", default="runs/ut_interaction", type=pathlib.Path)
    parser.add_argument("--seeds", nargs="+", default=[0, 1, 2], type=int)
    options = parser.parse_args()
    for seed in options.seeds:
        for recipe in RECIPES:
            folder = options.runs / f"{recipe}_{seed}"
            if not (folder / "trained.json").is_file():
                _train(recipe, seed, folder, options.runs / f"standard_{seed}", options.data)
            if not (folder / "results.json").is_file():
                _jaxmoe("evaluate", str(folder))
    print(tables(options.runs, options.seeds))


def tables(runs: pathlib.Path, seeds: list[int]) -> str:
    """Markdown: mean robust accuracy over the seeds, an attack a line, a recipe a column."""
    rows = {
        (recipe, seed): json.loads((runs / f"{recipe}_{seed}" / "results.json").read_text("utf-8"))
        for recipe in RECIPES
        for seed in seeds
    }
    epsilons = sorted({row["epsilon"] for row in rows["standard", seeds[0]]} - {0})
    lines = []
    for epsilon in epsilons:
        lines += ["", f"| ε = {epsilon * 255:.0f}/255 | " + " | ".join(RECIPES) + " |"]
        lines.append("|---" * (len(RECIPES) + 1) + "|")
        names = [row["attack"] for row in rows["standard", seeds[0]] if row["epsilon"] == epsilon]
        for name in ["clean", *names]:
            cells = []
            for recipe in RECIPES:
                values = [
                    100 * row["robust_accuracy"]
                    for seed in seeds
                    for row in rows[recipe, seed]
                    if row["attack"] == name and row["epsilon"] in (0, epsilon)
                ]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| training | " + " | ".join(RECIPES) + " |"]
    lines.append("|---" * (len(RECIPES) + 1) + "|")
    seconds = [
        statistics.mean(
            json.loads((runs / f"{recipe}_{seed}" / "trained.json").read_text("utf-8"))["seconds"]
            for seed in seeds
        )
        for recipe in RECIPES
    ]
    lines.append("| minutes | " + " | ".join(f"{value / 60:.1f}" for value in seconds) + " |")
    clips = rows["standard", seeds[0]][0]["n"]
    lines += ["", f"{clips} test clips, seeds {', '.join(map(str, seeds))}; accuracy in %."]
    return "\n".join(lines)


def _train(recipe: str, seed: int, folder: pathlib.Path, start: pathlib.Path, data: str) -> None:
    began = time.monotonic()
    arguments = [str(CONFIGS / f"ut_interaction_{recipe}.py"), "--data.directory", data]
    arguments += ["--run.directory", str(folder), "--run.seed", str(seed)]
    if recipe != "standard":
        arguments += ["--training.initialize-from", str(start)]
    _jaxmoe("train", *arguments)
    done = {"seconds": time.monotonic() - began}
    (folder / "trained.json").write_text(json.dumps(done) + "\n", "utf-8")


def _jaxmoe(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "jaxmoe", *arguments], check=True)


if __name__ == "__main__":
    main()
