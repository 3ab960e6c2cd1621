"""Which part of a mixture is the weak link? Prints both texts' definitions beside each other.

python launch/studies/weak_link/run.py RUN … [--router pgd-r] [--experts pgd-e] [--epsilons 4/255]
    [--evaluation strong]

Runs are evaluated folders RECIPE_SEED, as the study `cifar10` leaves them, or FOLD/RECIPE, as
`jaxmoe study` does, with an attack on the router and one on the experts among their rows. End to
end (the 2026 text on video), the whole mixture sees what was made for a part; isolated (the 2025
text on images), that part alone sees it, and the other the clean input.

No attack on the router alone does more than choose an expert. Where every expert is right on the
clean input, the isolated form of a top-1 mixture cannot fall: "floor" is the share of such inputs.
"""

import argparse
import pathlib
import re
import statistics
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.commands.arguments import number
from jaxmoe.evaluation.engine.part import take_part_of
from jaxmoe.evaluation.engine.scoring import to_pixels
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.mixture import no_head
from jaxmoe.reporting import read_results
from jaxmoe.reporting.results import markdown_table
from jaxmoe.runs import run as folders
from jaxmoe.runs.build import evaluation_loader
from jaxmoe.threat import format_epsilon


def main() -> None:
    """Prints the table."""
    options = parse(sys.argv[1:])
    floors = {run: floor(run, options.evaluation) for run in options.runs}
    attacks = options.router, options.experts
    print(table(options.runs, *attacks, floors, options.epsilons, options.evaluation))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN", nargs="+", type=pathlib.Path)
    parser.add_argument("--router", default="pgd-r", help="the attack on the router")
    parser.add_argument("--experts", default="pgd-e", help="the attack on the experts")
    parser.add_argument("--epsilons", nargs="+", type=number, help="some of the runs' (all)")
    parser.add_argument(
        "--evaluation", default=".", help="folder inside each RUN that has its results (RUN itself)"
    )
    options = parser.parse_args(arguments)
    radii: dict[str, set[tuple[str, float]]] = {}
    for run in options.runs:
        if not (run / options.evaluation / "results.json").is_file():
            parser.error(f"RUN: {run / options.evaluation} has no results.json; evaluate it first")
        rows = read_results(run / options.evaluation)
        for attack in (options.router, options.experts):
            own = [row for row in rows if row.attack == attack]
            if not own:
                parser.error(f"RUN: {run} was not evaluated under {attack}")
            if None in [row.isolated_accuracy for row in own]:
                parser.error(f"{attack} attacks more than a part: it has no isolated form")
            found = {(row.norm, row.epsilon) for row in own}
            missing = set(options.epsilons or ()) - {radius for _, radius in found}
            if missing:
                parser.error(f"--epsilons: {run} has no {attack} at {min(missing):g}")
            if radii.setdefault(recipe_of(run), found) != found:
                parser.error(f"RUN: {run} has other ε under {attack} than the rest of its recipe")
    return options


def recipe_of(run: pathlib.Path) -> str:
    """Returns a run's name without its seed."""
    return re.sub(r"_\d+$", "", run.name)


def floor(run: pathlib.Path, evaluation: str = ".") -> float | None:
    """The share of the test inputs that were evaluated on which every expert is right.

    None where that bounds nothing: of a router that chooses several, and of a dual model, whose
    results may also stand in a folder that is no run.
    """
    if not (run / "config.json").is_file():
        return None
    trained = folders.load(run)
    mixture, config = trained.mixture, trained.experiment
    if mixture.top_k > 1 or mixture.head is not no_head:
        return None

    @jax.jit
    def all_right(clip, label):
        logits = mixture.experts(trained.params, to_pixels(clip))
        return jnp.min(jax.vmap(accuracy, (0, None))(logits, label), axis=0)

    # An evaluation of a part has drawn it so.
    test = take_part_of(trained.dataset.test, read_results(run / evaluation)[0].n)
    batches = evaluation_loader(test, config.data, config.evaluation.batch_size)
    found = [np.asarray(all_right(b["clip"], b["label"]))[b["valid"]] for b in batches]
    return float(np.concatenate(found).mean())


def table(
    runs: list[pathlib.Path],
    router: str,
    experts: str,
    floors: dict[pathlib.Path, float | None],
    epsilons: list[float] | None = None,
    evaluation: str = ".",
) -> str:
    """Markdown: a line for each recipe and ε, means over the recipe's runs."""
    recipes: dict[str, list[pathlib.Path]] = {}
    for run in runs:
        recipes.setdefault(recipe_of(run), []).append(run)
    lines = []
    for recipe, own in recipes.items():
        found = [
            {(row.attack, row.epsilon): row for row in read_results(run / evaluation)}
            for run in own
        ]
        counts = count_of([rows["clean", 0.0].n for rows in found])
        clean = statistics.mean([rows["clean", 0.0].robust_accuracy for rows in found])
        lowest = [floors[run] for run in own if floors[run] is not None]
        for epsilon in epsilons or [e for attack, e in found[0] if attack == router]:
            cells = [
                statistics.mean([getattr(rows[attack, epsilon], form) for rows in found])
                for form in ("robust_accuracy", "isolated_accuracy")
                for attack in (router, experts)
            ]
            weaker = [weaker_of(*cells[:2]), weaker_of(*cells[2:])]
            shown = [f"{100 * value:.1f}" for value in (clean, *cells)]
            shown.insert(4, f"{100 * statistics.mean(lowest):.1f}" if lowest else "")
            radius = format_epsilon(epsilon, found[0][router, epsilon].norm)
            lines.append([recipe, counts, radius, *shown, *weaker])
    titles = ["%", "n", "ε", "clean", "RA-R", "RA-E", "RA-R isolated", "its floor", "RA-E isolated"]
    titles += ["weaker end to end", "weaker isolated"]
    note = f"RA-R: {router}, RA-E: {experts}; means over runs."
    return "\n".join([*markdown_table(titles, lines), "", note])


def count_of(counts: list[int]) -> str:
    """Test inputs of each run: 3 × 1017, or 23 + 24 + 25 where they differ."""
    if len(counts) > 1 and len(set(counts)) == 1:
        return f"{len(counts)} × {counts[0]}"
    return " + ".join(map(str, counts))


def weaker_of(router: float, experts: float) -> str:
    """The part with the lower robust accuracy."""
    if router == experts:
        return "neither"
    return "router" if router < experts else "experts"


if __name__ == "__main__":
    main()
