"""Which training makes a mixture? Trains one in several ways at equal cost; prints a table.

python launch/specialists.py --runs runs/specialists [--seeds 0 1 2] [--only single clusters]

All runs are `configs/video/domains.py` with other fields, and each takes as many gradients of a
clip as any other (`likelihood` also runs all experts forward, to assign). `single` is one expert
alone, of equal active FLOPs; `wide` one of about as many params as four. What a folder already
holds is not done again, so a stopped command goes on.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

from jaxmoe.reporting.results import markdown_table
from jaxmoe.training import Checkpoints

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "video" / "domains.py"
EPOCHS = 40


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
            "mixture.balance-weight": "1.0",
            "mixture.router-noise": "1.0",
            "mixture.spread-left": "0",
        }
    ),
    "clusters": _apart("clusters"),
    "likelihood": _apart("likelihood", 8, **{"router.name": "pooled"}),
    "own": _apart("own", 8, **{"router.name": "pooled"}),
    "expert_choice": _apart("expert_choice", 8, **{"router.name": "pooled"}),
}


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs/specialists", type=pathlib.Path)
    parser.add_argument("--seeds", nargs="+", default=[0, 1, 2], type=int)
    parser.add_argument("--only", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    options = parser.parse_args()
    for way in options.only:
        for seed in options.seeds:
            run = folder(options.runs, way, seed)
            if not (Checkpoints(run).position("latest") or {}).get("finished"):
                fields = {"run.directory": str(run), "run.seed": str(seed), **WAYS[way]}
                given = [part for name, value in fields.items() for part in (f"--{name}", value)]
                _jaxmoe("train", str(CONFIG), *given)
            if not (run / "evaluation.json").is_file():  # what is written last
                _jaxmoe("evaluate", str(run), "--no-checks")
    print(table(options.runs, options.only, options.seeds))


def folder(runs: pathlib.Path, way: str, seed: int) -> pathlib.Path:
    """Returns where a run lies."""
    return runs / f"{way.replace(' ', '_')}_{seed}"


def table(runs: pathlib.Path, ways: list[str], seeds: list[int]) -> str:
    """Markdown: a line for each way, means over the seeds."""
    lines = []
    for way in ways:
        rows = [_clean_row(folder(runs, way, seed)) for seed in seeds]
        details = [_details(folder(runs, way, seed)) for seed in seeds]
        minutes = [
            Checkpoints(folder(runs, way, seed)).position("latest")["seconds"] / 60
            for seed in seeds
        ]
        lines.append(
            [
                way,
                _mean(row["robust_accuracy"] for row in rows),
                *(
                    _mean(read(row, found) for row, found in zip(rows, details, strict=True))
                    if rows[0]["expert_accuracy"]
                    else "–"
                    for read in _COLUMNS.values()
                ),
                f"{statistics.mean(minutes):.1f}",
            ]
        )
    counts = f"n = {len(seeds)} × {_clean_row(folder(runs, ways[0], seeds[0]))['n']} clips"
    titles = ["clean %", "accuracy", *_COLUMNS, "minutes"]
    return "\n".join([*markdown_table(titles, lines), "", f"Means over seeds; {counts}."])


_COLUMNS = {
    "random route": lambda row, found: row["random_route_accuracy"],
    "best expert alone": lambda row, found: max(row["expert_accuracy"]),
    "most trusted": lambda row, found: row["trust_accuracy"][0],
    "least trusted": lambda row, found: row["trust_accuracy"][-1],
    "perfect route": lambda row, found: found["perfect_route"]["domain"]["value"],
    "smallest load": lambda row, found: min(row["load_clean"]),
    "two experts agree": lambda row, found: row["expert_agreement"],
}


def _mean(values) -> str:
    return f"{100 * statistics.mean(values):.1f}"


def _clean_row(run: pathlib.Path) -> dict:
    return json.loads((run / "results.json").read_text("utf-8"))[0]


def _details(run: pathlib.Path) -> dict:
    return json.loads((run / "evaluation.json").read_text("utf-8"))["specialization"]


def _jaxmoe(*arguments: str) -> None:
    code = subprocess.run([sys.executable, "-m", "jaxmoe", *arguments], check=False).returncode
    if code:
        sys.exit(code)  # it has said why


if __name__ == "__main__":
    main()
