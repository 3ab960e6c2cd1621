"""What each library finds in a cell of `auto_attack.py`, and how the two compare.

Axes: N = images, H W = height, width, C = channels.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import cifar_subject as subjects
import numpy as np
from curves import OFFICIAL_NORMS

from jaxmoe import attacks, evaluation
from jaxmoe.threat import ThreatModel

EPSILONS = {"linf": 8 / 255, "l2": 0.5}
STEPS, TARGETS, QUERIES = 100, 9, 5000  # AutoAttack's own
ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")


class Cell(NamedTuple):
    """One comparison."""

    kind: str
    model: str
    norm: str

    @property
    def name(self) -> str:
        """Of its file."""
        return "-".join(self)


class Side(NamedTuple):
    """What one library found."""

    robust: np.ndarray  # bool [N]
    x_adv: np.ndarray  # [N, H, W, C]
    seconds: float
    log: list[Any]


class Bench(NamedTuple):
    """What all cells share."""

    images: subjects.Images
    params: dict[str, Any]
    twins: dict[str, Any]
    options: argparse.Namespace
    say: Callable[[str], None]


def check_files(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends with one line where the official code or the images are not where `options` say."""
    if not (options.official / "autoattack" / "autoattack.py").is_file():
        parser.error(
            f"--official: {options.official} has no autoattack/autoattack.py; expected a copy of "
            "github.com/fra31/auto-attack"
        )
    if not options.data.is_file():
        parser.error(f"--data: {options.data} is no file; expected cifar10_lossless_partial.npz")


def ours(cell: Cell, bench: Bench, x: np.ndarray, y: np.ndarray) -> Side:
    """Our AutoAttack, or one attack of it."""
    model, alone = subjects.plain_apply(), cell.kind in ATTACKS
    if cell.kind == "rand":
        model = attacks.Randomized(subjects.noisy_apply(cell.model))
    start = time.perf_counter()
    result = evaluation.auto_attack(
        model,
        bench.params[cell.model],
        x,
        y,
        epsilon=EPSILONS[cell.norm],
        norm=cell.norm,
        version=[cell.kind] if alone else cell.kind,
        settings=attacks.AttackSettings(steps=STEPS, targets=TARGETS, queries=QUERIES),
        seed=bench.options.seed,
        batch_size=bench.options.batch_size,
        say=lambda line: bench.say(f"  ours: {line}"),
    )
    seconds = time.perf_counter() - start
    log = [entry._asdict() for entry in result.log]
    return Side(result.robust, result.x_adv, seconds, log)


def official(cell: Cell, bench: Bench, x: np.ndarray, y: np.ndarray, seed: int) -> Side:
    """The authors' AutoAttack, or one attack of it."""
    import torch
    from autoattack import AutoAttack

    torch.manual_seed(seed)
    adversary = AutoAttack(
        bench.twins[cell.model],
        norm=OFFICIAL_NORMS[cell.norm],
        eps=EPSILONS[cell.norm],
        seed=seed,
        verbose=False,
        attacks_to_run=[cell.kind] if cell.kind in ATTACKS else [],
        version="custom" if cell.kind in ATTACKS else cell.kind,
        device="cpu",
    )
    # The version "custom" leaves five restarts; "standard" sets one, as the paper says.
    adversary.apgd.n_restarts = adversary.fab.n_restarts = 1
    adversary.verbose, log = True, []
    adversary.logger.log = lambda line: (log.append(line), bench.say(f"  official: {line}"))
    images, labels = subjects.to_torch(x), torch.tensor(y).long()
    start = time.perf_counter()
    x_adv, found = adversary.run_standard_evaluation(
        images, labels, bs=bench.options.batch_size, return_labels=True
    )
    seconds = time.perf_counter() - start
    x_adv = np.moveaxis(x_adv.numpy(), 1, -1)
    return Side(found.numpy() == y, x_adv, seconds, log)


def compare(
    cell: Cell, bench: Bench, own: Side, theirs: Side, x: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """The figures of two sides."""
    compiled = sum(entry["seconds"] for entry in own.log)
    record = {
        "ours": summary(own, x, cell.norm),
        "official": summary(theirs, x, cell.norm),
        "agreement": agreement(own, theirs),
        "only_ours_breaks": int(np.sum(~own.robust & theirs.robust)),
        "only_official_breaks": int(np.sum(own.robust & ~theirs.robust)),
        "ratio": own.seconds / theirs.seconds,
        "compiled_seconds": compiled,  # the attacks alone
        "compiled_ratio": compiled / theirs.seconds,
    }
    if cell.kind != "rand" and not own.robust.all():
        # What we call broken has to be wrong in the other framework as well.
        logits = bench.twins[cell.model](subjects.to_torch(own.x_adv[~own.robust])).numpy()
        record["ours_broken_in_torch"] = float(np.mean(logits.argmax(-1) != y[~own.robust]))
    return record


def summary(side: Side, x: np.ndarray, norm: str) -> dict[str, Any]:
    """One side's figures."""
    return {
        "robust_accuracy": float(np.mean(side.robust)),
        "seconds": side.seconds,
        "largest_change": float(np.max(ThreatModel(norm, 1.0).size(side.x_adv, x))),
        "log": side.log,
    }


def agreement(one: Side, other: Side) -> float:
    """Share of the images that are robust on both sides or on neither."""
    return float(np.mean(one.robust == other.robust))
