"""All attacks on trained runs, and the strongest of them at equal cost; prints its README's tables.

python launch/studies/arsenal/run.py RUN … --data DIR [--epsilons 2/255 4/255 8/255]
    [--only all equal]

Runs are folders RECIPE_SEED, or FOLD/RECIPE as `jaxmoe study` makes them; lines are means over a
recipe's runs. In `all` every attack of the registry has the run's own steps and starts (10 and
one). In `equal` four adversaries get about as many gradients as AutoAttack takes of a clip that
survives it (six classes: 1,106): each as a cascade, on the clips that still stand, 100 steps at a
time. AutoAttack has 5,000 queries beside them. An evaluation that is done is not done again while
the command and the run are the same, and one that was stopped goes on; remove RUN/arsenal after a
change of code.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys

from jaxmoe.attacks import ATTACKS, CASCADES

EQUAL = {  # starts of 100 steps, for 1,100 gradients or, of four experts with 101 each, 1,212
    "pgd": ["--cascade", "pgd", "--steps", "100", "--restarts", "11"],
    "j-tlga": ["--cascade", "j-tlga", "--steps", "100", "--restarts", "11"],
    "enumerated-route": ["--cascade", "enumerated-route", "--steps", "100", "--restarts", "3"],
    "auto-attack": ["--attacks", "auto-attack"],
}
# Of one label for a clip, `pgd-standing` is PGD that stops where the clip is wrong.
_ATTACKS = [name for name in ATTACKS if name != "pgd-standing"]
QUERIES = "500"  # of Square among the attacks of `all`; AutoAttack's has 5000


def main() -> None:
    """Evaluates what is missing, then prints the tables."""
    options = parse(sys.argv[1:])
    evaluations = {
        "all": {"all": ["--attacks", *_ATTACKS, "--queries", QUERIES]},
        "equal": EQUAL,
    }
    for kind in options.only:
        for run in options.runs:
            for name, arguments in evaluations[kind].items():
                evaluate(run, run / "arsenal" / name, arguments, options)
    if "all" in options.only:
        print(all_attacks(options.runs), end="\n\n")
    if "equal" in options.only:
        print(equal_cost(options.runs))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN", nargs="+", type=pathlib.Path)
    parser.add_argument("--data", required=True, help="the folder with the videos")
    parser.add_argument("--epsilons", nargs="+", default=["2/255", "4/255", "8/255"])
    parser.add_argument("--only", nargs="+", choices=("all", "equal"), default=["all", "equal"])
    options = parser.parse_args(arguments)
    for run in options.runs:
        if not (run / "config.json").is_file():
            parser.error(f"RUN: {run} has no config.json; expected the folder of a trained run")
    return options


def evaluate(
    run: pathlib.Path, output: pathlib.Path, arguments: list[str], options: argparse.Namespace
) -> None:
    """`jaxmoe evaluate` of one run, if it was not done."""
    command = command_of(run, output, arguments, options)
    if is_done(run, output, command):
        return
    print("jaxmoe", " ".join(command), flush=True)
    code = subprocess.run([sys.executable, "-m", "jaxmoe", *command], check=False).returncode
    if code:
        sys.exit(code)  # it has said why


def command_of(
    run: pathlib.Path, output: pathlib.Path, arguments: list[str], options: argparse.Namespace
) -> list[str]:
    """The arguments of `jaxmoe`."""
    command = ["evaluate", str(run), *arguments]
    command += ["--epsilons", *options.epsilons, "--data.directory", options.data]
    # As many test clips as a fold of UT-Interaction has: one batch with hardly any padding.
    return [*command, "--batch-size", "25", "--output", str(output)]


def is_done(run: pathlib.Path, output: pathlib.Path, command: list[str]) -> bool:
    """Whether `output` has the results of this command on these params."""
    file = output / "evaluation.json"  # what is written last
    if not file.is_file() or file.stat().st_mtime < (run / "metrics.jsonl").stat().st_mtime:
        return False
    return json.loads(file.read_text("utf-8"))["command"][1:] == command


def all_attacks(runs: list[pathlib.Path]) -> str:
    """Markdown: robust accuracy at each ε of every attack, and the gradients that it took."""
    found = {run: read(run / "arsenal" / "all" / "results.json") for run in runs}
    recipes = by_recipe(runs)
    lines = [table_line(["%", "gradients", *recipes]), table_line(["---"] * (2 + len(recipes)))]
    for attack in dict.fromkeys(attack for rows in found.values() for attack, _ in rows):
        first = next(row for (name, _), row in found[runs[0]].items() if name == attack)
        cost = f"{first['gradient_evaluations']:.0f}"
        cells = [accuracies([found[run] for run in group], attack) for group in recipes.values()]
        lines.append(table_line([attack, cost, *cells]))
    return "\n".join([*lines, "", note(found, recipes)])


def equal_cost(runs: list[pathlib.Path]) -> str:
    """Markdown: robust accuracy and mean gradients of each adversary of `EQUAL`."""
    recipes = by_recipe(runs)
    titles = [title for recipe in recipes for title in (f"{recipe} %", "gradients")]
    lines = [table_line(["", *titles]), table_line(["---"] * (1 + len(titles)))]
    for name in EQUAL:
        found = {run: read(run / "arsenal" / name / "results.json") for run in runs}
        attack = name if name in CASCADES else "auto-attack-custom"
        cells = []
        for group in recipes.values():
            rows = [found[run] for run in group]
            cells += [accuracies(rows, attack), costs(rows, attack)]
        lines.append(table_line([name, *cells]))
    return "\n".join([*lines, "", note(found, recipes)])


def by_recipe(runs: list[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    """Runs of one recipe, which differ in their seeds or folds."""
    groups: dict[str, list[pathlib.Path]] = {}
    for run in runs:
        groups.setdefault(re.sub(r"_\d+$", "", run.name), []).append(run)
    return groups


def read(file: pathlib.Path) -> dict[tuple[str, float], dict]:
    """Rows by attack and ε."""
    rows = json.loads(file.read_text("utf-8"))
    return {(row["attack"], row["epsilon"]): row for row in rows}


def accuracies(runs: list[dict], attack: str) -> str:
    """Means over runs, an ε after the other."""
    return " / ".join(f"{100 * value:.1f}" for value in means(runs, attack, "robust_accuracy"))


def costs(runs: list[dict], attack: str) -> str:
    """The same of the gradients, of all clips."""
    return " / ".join(f"{value:.0f}" for value in means(runs, attack, "gradient_evaluations"))


def means(runs: list[dict], attack: str, field: str) -> list[float]:
    """A field's mean over runs at each ε, from the smallest."""
    epsilons = sorted({epsilon for name, epsilon in runs[0] if name == attack})
    return [statistics.mean(run[attack, epsilon][field] for run in runs) for epsilon in epsilons]


def note(found: dict[pathlib.Path, dict], recipes: dict[str, list[pathlib.Path]]) -> str:
    """What the numbers are of."""
    rows = found[recipes[next(iter(recipes))][0]]
    radii = " / ".join(f"{e * 255:g}" for e in sorted({e for _, e in rows} - {0.0}))
    clips = {
        recipe: " + ".join(str(found[run]["clean", 0.0]["n"]) for run in group)
        for recipe, group in recipes.items()
    }
    counts = "; ".join(f"{recipe}: n = {text}" for recipe, text in clips.items())
    return f"ε = {radii} /255, {next(iter(rows.values()))['norm']}, batches of 25. {counts}."


def table_line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
