"""Compares ways to train a mixture and to defend it: trains, attacks, and prints tables.

python launch/studies/specialists/run.py --runs runs/specialists [--ways single clusters]
    [--defences standard AT-M] [--seeds 0 1 2] [--strong]

All runs are `configs/video/domains.py` with other fields. Each takes as many gradients of a clip as
any other of its defence; `likelihood` also runs all experts forward, to assign. `single` is one
expert alone, of equal active FLOPs; `wide` is one network with about as many params as four
experts. A defence starts from the standard run of its way and seed. It takes 48 gradients of one
network, within a tenth, those of attacks and of every run in a loss counted; J-TLAT takes 60, and
`AT-M, longer` is its partner. JTDMoE starts from RT-ER's run, so that both together take 97. A
stopped command goes on: it does nothing again that its folder already holds.

The data is made so that specialists can gain. `clusters` finds its domains by k-means; `faint cue`
is told them, for k-means cannot see them. One network is under fewer attacks, which favours it.

The tables have means over seeds: what the experts are, and robust accuracy. --strong adds one of
AutoAttack, attacks on parts and the checks for masked gradients, on fewer clips of the first seed.
"""

import argparse
import itertools
import json
import math
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterable

from jaxmoe.attacks import find_attack
from jaxmoe.reporting.results import markdown_table
from jaxmoe.training import Checkpoints

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "video" / "domains.py"
EPOCHS = 40  # of clean training
ADVERSARIAL_GRADIENTS = 48  # of a clip, about: steps of attacks, and runs of a network in losses
OF_J_TLAT = 60  # its second phase runs two experts, and a quotient runs clean clips too


def _apart(way: str, shared: int = 0, **fields: str) -> dict[str, str]:
    own = EPOCHS - shared - 4
    return {
        "training.specialize": way,
        "training.shared-epochs": str(shared),
        "training.shared-noise": "0.05",
        "training.specialize-epochs": str(own),
        "training.epochs": "4",
        **fields,
    }


def _together(**fields: str) -> dict[str, str]:
    return {"training.specialize-epochs": "0", "training.epochs": str(EPOCHS), **fields}


# From scratch, experts that choose for themselves stay at chance or collapse.
_COPIED = {
    "training.shared-epochs": "8",
    "training.shared-noise": "0.05",
    "training.epochs": str(EPOCHS - 8),
}
WAYS: dict[str, dict[str, str]] = {
    "single": _together(**{"mixture.experts": "1"}),
    "wide": _together(**{"mixture.experts": "1", "expert.width": "8"}),
    "copies": _together(
        **{
            "training.shared-epochs": "32",
            "training.shared-noise": "0.05",
            "training.epochs": "8",
            "mixture.balance-weight": "1.5",
        }
    ),
    "from scratch": _together(**{"mixture.balance-weight": "0.01"}),
    "annealed": _together(
        **{
            **_COPIED,
            "mixture.balance-weight": "0.5",
            "mixture.router-noise": "0.25",
            "mixture.spread-left": "0",
        }
    ),
    "v-moe": _together(
        **{
            **_COPIED,
            "mixture.balance": "v-moe",
            "mixture.balance-weight": "0.1",
            "mixture.router-noise": "0.25",
        }
    ),
    # An epoch of all experts takes four gradients of a clip.
    "dense first": _together(**{"training.dense-epochs": "6", "training.epochs": "16"}),
    "clusters": _apart("clusters"),
    "likelihood": _apart("likelihood", 8, **{"router.name": "pooled"}),
    "own": _apart("own", 8, **{"router.name": "pooled"}),
    "expert_choice": _apart("expert_choice", 8, **{"router.name": "pooled"}),
    "faint cue": _apart("column", **{"data.domain-cue": "stripes"}),
    "faint cue, single": _together(**{"mixture.experts": "1", "data.domain-cue": "stripes"}),
}

# Whatever the clean run did.
_SAME_FOR_ALL = {
    "training.shared-epochs": "0",
    "training.specialize-epochs": "0",
    "mixture.balance": "switch",
    "mixture.balance-weight": "0.1",
    "mixture.router-noise": "0",
    "mixture.spread-left": "1",
    "optimizer.learning-rate": "2e-3",
}
_KEEPS_ROUTES = {"training.route-weight": "1", "training.attacked-route": "clean"}
DEFENCES: dict[str, dict[str, str]] = {
    "standard": {},
    "AT-M": {"recipe": "at_m", "training.epochs": "12"},
    "AT-M, longer": {"recipe": "at_m", "training.epochs": "15", **_KEEPS_ROUTES},
    "TLAT": {"recipe": "tlat", "training.epochs": "10", **_KEEPS_ROUTES},
    "J-TLAT": {"recipe": "j_tlat", "training.epochs": "4", **_KEEPS_ROUTES},
    "RT-ER": {"recipe": "rt_er", "training.epochs": "5", "recipe.beta": "2"},
    "JTDMoE": {
        "recipe": "jtdmoe",
        "training.epochs": "2",
        "recipe.beta": "2",
        "mixture.dual_weight": "0.7",
    },
}
NEEDS_ROUTER = ("J-TLAT", "RT-ER", "JTDMoE")
ATTACKS = ("pgd-r", "tla-r", "tlga-r", "pgd", "tla-m", "j-tlga", "enumerated-route")
OF_ONE = ("pgd", "tla-m", "j-tlga")  # one network has no route
EXAMPLES = 240  # of 480 test clips, drawn by class: each attack of each run takes its time
STRONG = ("pgd", "pgd-r", "pgd-e", "auto-attack")
STRONG_OF_ONE = ("pgd", "auto-attack")
STRONG_EXAMPLES = 96
STRONG_EPSILON = "4/255"
STRONG_FOLDER = "strong"  # of a run


def main() -> None:
    """Runs what is missing, then prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs/specialists", type=pathlib.Path)
    parser.add_argument("--seeds", nargs="+", default=[0, 1, 2], type=int)
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--defences", nargs="+", choices=tuple(DEFENCES), default=["standard"])
    parser.add_argument("--strong", action="store_true", help="also AutoAttack and checks")
    options = parser.parse_args()
    pairs = list(itertools.product(options.ways, options.defences))
    pairs = [pair for pair in pairs if not (_is_one(pair[0]) and pair[1] in NEEDS_ROUTER)]
    if not pairs:
        parser.error(f"--defences: {' '.join(options.defences)} need a router, and no way has one")
    for (way, defence), seed in itertools.product(pairs, options.seeds):
        train(options.runs, way, defence, seed)
        evaluate(folder(options.runs, way, seed, defence), way)
    if options.strong:
        for way, defence in pairs:
            attack_strongly(folder(options.runs, way, options.seeds[0], defence), way)
    print(kinds_table(options.runs, pairs, options.seeds))
    first = folder(options.runs, pairs[0][0], options.seeds[0], pairs[0][1])
    for epsilon in sorted({row["epsilon"] for row in _rows(first)} - {0.0}):
        print("\n" + attacks_table(options.runs, pairs, options.seeds, epsilon))
    if options.strong:
        print("\n" + strong_table(options.runs, pairs, options.seeds[0]))


def train(runs: pathlib.Path, way: str, defence: str, seed: int) -> None:
    """Trains what is missing of a run, and before it the runs that it starts from."""
    run, fields = folder(runs, way, seed, defence), dict(WAYS[way])
    if (Checkpoints(run).position("latest") or {}).get("finished"):
        return
    if defence != "standard":
        train(runs, way, "standard", seed)
        standard = str(folder(runs, way, seed))
        start = {"training.initialize-from": standard}
        if defence == "JTDMoE":
            train(runs, way, "RT-ER", seed)
            start = {
                "training.initialize-from": str(folder(runs, way, seed, "RT-ER")),
                "training.initialize-standard-from": standard,
            }
        fields |= {**start, **_SAME_FOR_ALL, **DEFENCES[defence]}
    fields |= {"run.directory": str(run), "run.seed": str(seed)}
    _jaxmoe(
        "train", str(CONFIG), *(part for name in fields for part in (f"--{name}", fields[name]))
    )


def evaluate(run: pathlib.Path, way: str) -> None:
    """Attacks a run, if that was not done to its end."""
    if not _is_evaluated(run):
        attacks = OF_ONE if _is_one(way) else ATTACKS
        given = ["--attacks", *attacks, "--limit", str(EXAMPLES), "--no-checks"]
        _jaxmoe("evaluate", str(run), *given)


def attack_strongly(run: pathlib.Path, way: str) -> None:
    """AutoAttack, attacks on the parts and checks for masked gradients, in a folder of the run."""
    output = run / STRONG_FOLDER
    if not _is_evaluated(output):
        attacks = STRONG_OF_ONE if _is_one(way) else STRONG
        given = ["--attacks", *attacks, "--epsilons", STRONG_EPSILON]
        given += ["--limit", str(STRONG_EXAMPLES), "--output", str(output)]
        _jaxmoe("evaluate", str(run), *given)


def _is_evaluated(output: pathlib.Path) -> bool:
    # An evaluation that was stopped leaves its journal beside what it had.
    return (output / "evaluation.json").is_file() and not (output / "evaluation.journal").is_file()


def _is_one(way: str) -> bool:
    return WAYS[way].get("mixture.experts") == "1"


def folder(runs: pathlib.Path, way: str, seed: int, defence: str = "standard") -> pathlib.Path:
    """Returns where a run lies."""
    name = way if defence == "standard" else f"{way} {defence}"
    return runs / f"{name.replace(',', '').replace(' ', '_')}_{seed}"


Pairs = list[tuple[str, str]]
"""Ways and defences."""


def kinds_table(runs: pathlib.Path, pairs: Pairs, seeds: list[int]) -> str:
    """Markdown: a line for each way and defence, what its experts are on clean clips."""
    lines = []
    for way, defence in pairs:
        folders = [folder(runs, way, seed, defence) for seed in seeds]
        rows = [_rows(run)[0] for run in folders]
        details = [_details(run) for run in folders]
        minutes = [Checkpoints(run).position("latest")["seconds"] / 60 for run in folders]
        read = [
            _mean(read(row, found) for row, found in zip(rows, details, strict=True))
            if rows[0]["expert_accuracy"]
            else "–"
            for read in _COLUMNS.values()
        ]
        accuracy = _mean(row["robust_accuracy"] for row in rows)
        minute = f"{statistics.mean(minutes):.1f}"
        lines.append([_name(way, defence), str(len(seeds)), accuracy, *read, minute])
    titles = ["clean %", "seeds", "accuracy", *_COLUMNS, "minutes"]
    return "\n".join([*markdown_table(titles, lines), "", _counts(folders)])


def attacks_table(runs: pathlib.Path, pairs: Pairs, seeds: list[int], epsilon: float) -> str:
    """Markdown: a line for each way and defence, a column for each attack.

    Each figure has half the width of its 95 % interval over seeds (Student's t) behind it.
    """
    lines = []
    for way, defence in pairs:
        folders = [folder(runs, way, seed, defence) for seed in seeds]
        found = [_accuracies(run, epsilon) for run in folders]
        cells = [
            _interval([by[name] for by in found]) if name in found[0] else "–"
            for name in ("clean", *ATTACKS, "worst-case")
        ]
        lines.append([_name(way, defence), str(len(seeds)), *cells])
    attacks = [find_attack(name).title for name in ATTACKS]
    titles = [f"ε = {round(255 * epsilon)}/255, %", "seeds", "clean", *attacks, "worst case"]
    return "\n".join([*markdown_table(titles, lines), "", _counts(folders)])


def strong_table(runs: pathlib.Path, pairs: Pairs, seed: int) -> str:
    """Markdown: a line for each way and defence under AutoAttack, and what the checks say."""
    lines, counted = [], 0
    for way, defence in pairs:
        output = folder(runs, way, seed, defence) / STRONG_FOLDER
        found = {row["attack"]: row for row in _rows(output)}
        counted = found["clean"]["n"]
        cells = [
            f"{100 * found[name]['robust_accuracy']:.1f}" if name in found else "–"
            for name in ("clean", *STRONG, "worst-case")
        ]
        checks = json.loads((output / "evaluation.json").read_text("utf-8"))["checks"]
        doubts = [check["name"] for check in checks if check["verdict"] == "flag"]
        lines.append([_name(way, defence), *cells, ", ".join(doubts) or "none"])
    attacks = [find_attack(name).title for name in STRONG[:-1]] + ["AutoAttack"]
    titles = [f"ε = {STRONG_EPSILON}, %", "clean", *attacks, "worst case", "doubtful checks"]
    return "\n".join([*markdown_table(titles, lines), "", f"Seed {seed}, {counted} test clips."])


_COLUMNS = {
    "random route": lambda row, found: row["random_route_accuracy"],
    "best expert alone": lambda row, found: max(row["expert_accuracy"]),
    "most trusted": lambda row, found: row["trust_accuracy"][0],
    "least trusted": lambda row, found: row["trust_accuracy"][-1],
    "perfect route": lambda row, found: found["perfect_route"]["domain"]["value"],
    "smallest load": lambda row, found: min(row["load_clean"]),
    "two experts agree": lambda row, found: row["expert_agreement"],
}


def _interval(values: list[float]) -> str:
    mean = 100 * statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    from scipy.stats import t  # takes a second

    deviation = 100 * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.1f} ± {t.ppf(0.975, len(values) - 1) * deviation:.1f}"


def _mean(values: Iterable[float]) -> str:
    return f"{100 * statistics.mean(values):.1f}"


def _name(way: str, defence: str) -> str:
    return way if defence == "standard" else f"{way}, {defence}"


def _counts(folders: list[pathlib.Path]) -> str:
    clips = _rows(folders[0])[0]["n"]
    if len(folders) == 1:
        return f"One seed, {clips} test clips."
    return f"Means over {len(folders)} seeds, each on the same {clips} test clips."


def _accuracies(run: pathlib.Path, epsilon: float) -> dict[str, float]:
    """Robust accuracy by attack at one ε, the clean one among them."""
    rows = [row for row in _rows(run) if row["epsilon"] in (0.0, epsilon)]
    return {row["attack"]: row["robust_accuracy"] for row in rows}


def _rows(run: pathlib.Path) -> list[dict]:
    return json.loads((run / "results.json").read_text("utf-8"))


def _details(run: pathlib.Path) -> dict:
    return json.loads((run / "evaluation.json").read_text("utf-8"))["specialization"]


def _jaxmoe(*arguments: str) -> None:
    code = subprocess.run([sys.executable, "-m", "jaxmoe", *arguments], check=False).returncode
    if code:
        sys.exit(code)  # it has said why


if __name__ == "__main__":
    main()
