"""Which part of a mixture is the weak link? Prints both texts' definitions beside each other.

python launch/weak_link.py RUN … [--router pgd-r] [--experts pgd-e]

Runs are evaluated folders RECIPE_SEED, as `ut_interaction.py` and `cifar10.py` leave them, with an
attack on the router and one on the experts among their rows. End to end (the 2026 text on video),
the whole mixture sees what was made for a part; isolated (the 2025 text on images), that part alone
sees it, and the other the clean input.
"""

import argparse
import pathlib
import statistics
import sys

from jaxmoe.evaluation import Row
from jaxmoe.reporting import read_results
from jaxmoe.reporting.results import markdown_table
from jaxmoe.threat import format_epsilon


def main() -> None:
    """Prints the table."""
    options = parse(sys.argv[1:])
    print(table(options.runs, options.router, options.experts))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN", nargs="+", type=pathlib.Path)
    parser.add_argument("--router", default="pgd-r", help="the attack on the router")
    parser.add_argument("--experts", default="pgd-e", help="the attack on the experts")
    options = parser.parse_args(arguments)
    for run in options.runs:
        if not (run / "results.json").is_file():
            parser.error(f"RUN: {run} has no results.json; evaluate it first")
        rows = read_results(run)
        for attack in (options.router, options.experts):
            forms = [row.isolated_accuracy for row in rows if row.attack == attack]
            if not forms:
                parser.error(f"RUN: {run} was not evaluated under {attack}")
            if None in forms:
                parser.error(f"{attack} attacks more than a part: it has no isolated form")
    return options


def table(runs: list[pathlib.Path], router: str, experts: str) -> str:
    """Markdown: a line for each recipe and ε, means over the recipe's runs."""
    recipes: dict[str, list[dict[tuple[str, float], Row]]] = {}
    for run in runs:
        rows = {(row.attack, row.epsilon): row for row in read_results(run)}
        recipes.setdefault(run.name.rpartition("_")[0] or run.name, []).append(rows)
    lines = []
    for recipe, found in recipes.items():
        clean = _mean([rows["clean", 0.0].robust_accuracy for rows in found])
        epsilons = [epsilon for attack, epsilon in found[0] if attack == router]
        for epsilon in epsilons:
            cells = [
                _mean([getattr(rows[attack, epsilon], form) for rows in found])
                for form in ("robust_accuracy", "isolated_accuracy")
                for attack in (router, experts)
            ]
            weaker = [
                "router" if own < other else "experts" if other < own else "neither"
                for own, other in (cells[:2], cells[2:])
            ]
            shown = [f"{100 * value:.1f}" for value in (clean, *cells)]
            radius = format_epsilon(epsilon, found[0][router, epsilon].norm)
            lines.append([recipe, radius, *shown, *weaker])
    titles = ["%", "ε", "clean", "RA-R", "RA-E", "RA-R isolated", "RA-E isolated"]
    titles += ["weaker end to end", "weaker isolated"]
    count = " + ".join(str(rows["clean", 0.0].n) for rows in next(iter(recipes.values())))
    note = f"RA-R: {router}, RA-E: {experts}; means over runs, n = {count}."
    return "\n".join([*markdown_table(titles, lines), "", note])


def _mean(values: list[float]) -> float:
    return statistics.mean(values)


if __name__ == "__main__":
    main()
