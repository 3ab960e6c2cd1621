"""Benchmarks: ratios measured in one run, each with the bar that it should not pass.

A benchmark is a module with `run() -> list[Row]`; it is imported when it runs.
"""

import importlib
from collections.abc import Callable, Sequence

from jaxmoe.benchmarks.row import Row

BENCHMARKS = {
    "import-time": "import jaxmoe against its libraries",
    "attack-loop": "a compiled attack against as many single gradient steps",
    "dispatch": "a sparse mixture against one expert and the router",
    "flops": "operations of the sparse mixture against the dense one",
    "compilations": "compilations of an attack over a sweep of ε",
    "sweep": "a sweep of ε against a run for each attack and ε",
    "memory": "temporary memory of 50 steps against 10",
    "memory-saving": "rematerialisation and bfloat16: memory and time of a training gradient",
    "training-step": "a J-TLAT step against the gradients that it needs, time and operations",
    "collectives": "gradient reductions of a compiled step on 4 devices",
    "processes": "a step of two processes against one process that has their devices",
    "checkpoints": "time in saving against the run, a checkpoint every 100 steps",
    "loader": "what a training step consumes against what the loader gives",
}
VERSUS = {"torch": "torch_pgd"}


def run_benchmarks(
    only: Sequence[str] | None = None,
    versus: str | None = None,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Runs benchmarks by name, all by default.

    Args:
      only: names of `BENCHMARKS`; None is all of them.
      versus: a name of `VERSUS` to compare with as well.
      say: told what runs, and every row.
    """
    modules = {name: name.replace("-", "_") for name in only or BENCHMARKS}
    if versus is not None:
        modules[versus] = VERSUS[versus]
    rows = []
    for name, module in modules.items():
        say(f"{name}: {BENCHMARKS.get(name, 'the same attack on the same weights elsewhere')}")
        for row in importlib.import_module(f"jaxmoe.benchmarks.{module}").run():
            say(f"  {row.name}: {row.ratio:.3f}, bar {row.bar:.2f}")
            rows.append(row)
    return rows
