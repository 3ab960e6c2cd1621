"""What each library finds in a cell of `versus_auto_attack.py`, and how the two compare.

Axes: N = images, H W = height, width, C = channels.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import cifar_subject as subjects
import jax
import numpy as np
from versus_curves import OFFICIAL_NORMS

from jaxmoe import attacks, evaluation
from jaxmoe.threat import ThreatModel, example_keys

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


def our_version(cell: Cell, bench: Bench, x: np.ndarray, y: np.ndarray) -> Side:
    """All of our AutoAttack."""
    model = subjects.plain_apply()
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
        version=cell.kind,
        seed=bench.options.seed,
        batch_size=bench.options.batch_size,
        say=lambda line: bench.say(f"  ours: {line}"),
    )
    seconds = time.perf_counter() - start
    log = [dict(entry._asdict() if hasattr(entry, "_asdict") else entry) for entry in result.log]
    return Side(np.asarray(result.robust), np.asarray(result.x_adv), seconds, log)


def our_attack(cell: Cell, bench: Bench, x: np.ndarray, y: np.ndarray) -> Side:
    """One attack alone on the images that are right when clean, in batches of one shape."""
    apply, params = subjects.plain_apply(), bench.params[cell.model]
    size = bench.options.batch_size
    settings = attacks.AttackSettings(steps=STEPS, targets=TARGETS, queries=QUERIES)
    threat = ThreatModel(cell.norm, EPSILONS[cell.norm])
    predict = jax.jit(lambda x: apply(params, x).argmax(-1))
    start = time.perf_counter()
    attack = jax.jit(attacks.build_attack(cell.kind, apply, threat, settings))
    robust, x_adv = np.asarray(predict(x)) == y, x.copy()
    left = np.flatnonzero(robust)
    for first in range(0, len(left), size):
        rows = left[first : first + size]
        padded = np.resize(rows, size)  # repeats rows where the last batch is short
        keys = example_keys(jax.random.key(bench.options.seed), padded)
        found = attack(keys, params, x[padded], y[padded]).x_adv
        robust[rows] = np.asarray(predict(found) == y[padded])[: len(rows)]
        x_adv[rows] = np.asarray(found)[: len(rows)]
        bench.say(f"  ours: {first + len(rows)} of {len(left)} images")
    return Side(robust, x_adv, time.perf_counter() - start, [])


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
    cell: Cell, bench: Bench, ours: Side, theirs: Side, x: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """The figures of two sides."""
    record = {
        "ours": summary(ours, x, cell.norm),
        "official": summary(theirs, x, cell.norm),
        "agreement": agreement(ours, theirs),
        "only_ours_breaks": int(np.sum(~ours.robust & theirs.robust)),
        "only_official_breaks": int(np.sum(ours.robust & ~theirs.robust)),
        "ratio": ours.seconds / theirs.seconds,
    }
    if cell.kind != "rand" and not ours.robust.all():
        # What we call broken has to be wrong in the other framework as well.
        logits = bench.twins[cell.model](subjects.to_torch(ours.x_adv[~ours.robust])).numpy()
        record["ours_broken_in_torch"] = float(np.mean(logits.argmax(-1) != y[~ours.robust]))
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
