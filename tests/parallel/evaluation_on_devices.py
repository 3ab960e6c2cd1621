"""Evaluates on the devices that there are and prints the rows; run by a test."""

import json
import sys

import jax
import numpy as np

from jaxmoe.attacks import AttackSettings
from jaxmoe.evaluation import Grid, auto_attack, evaluate_suite, sweep_grid
from jaxmoe.evaluation.certify.certification import certifiable, lipschitz_curve, smoothing_curve
from jaxmoe.evaluation.engine.arrays import cut
from jaxmoe.parallel import hosts
from jaxmoe.settings import Smoothing
from tests.training.conftest import CLASSES, EXPERTS, SHAPE, tiny_mixture

TIMES = ("seconds", "compile_seconds")
SETTINGS = AttackSettings(steps=3, queries=20)
SMOOTHING = Smoothing(sigma=0.1, selection=10, samples=30)


def main() -> None:
    """Prints what is found."""
    hosts.join()
    found = evaluate(whole=sys.argv[1] == "whole")
    if hosts.is_first():
        print(json.dumps(found, default=str))


def evaluate(*, whole: bool) -> dict:
    """Returns the rows of a suite on 21 clips in tens; where asked, of all that judges a model."""
    mixture = tiny_mixture()
    params = mixture.init(jax.random.key(3), None)
    draw = np.random.default_rng(5)
    x = draw.uniform(size=(21, *SHAPE)).astype(np.float32)
    y = np.asarray(mixture.apply(params, x)).argmax(axis=-1)
    y[:4] = (y[:4] + 1) % CLASSES
    batches = cut(x, y, 10)
    suite = evaluate_suite(
        mixture,
        params,
        batches,
        attacks=["pgd", "tlga-r", "apgd-ce"] if whole else ["pgd"],
        epsilons=[0.05, 0.2],
        settings=SETTINGS,
        checks=whole,
    )
    rows = [row._asdict() for row in suite.rows]
    if whole:
        grid = Grid((0.05, 0.1), {"alpha": (0.1, 0.5)})
        sweep = sweep_grid(mixture, params, batches, attacks=["pgd"], grid=grid, settings=SETTINGS)
        strong = auto_attack(mixture, params, x, y, epsilon=0.05, batch_size=8, settings=SETTINGS)
        rows += [row._asdict() for row in sweep.rows]
        rows += [{"robust_accuracy": strong.robust_accuracy}]
        rows += certificates(mixture, params, batches)
    for row in rows:
        for name in TIMES:
            row.pop(name, None)
    return {"rows": rows, "devices": jax.device_count()}


def certificates(mixture, params, batches):
    """Returns a row for each way to certify, by made-up constants that are alike for all."""
    bounds = np.ones((EXPERTS, EXPERTS)), np.ones((EXPERTS, CLASSES, CLASSES))
    curves = (
        lipschitz_curve(
            certifiable(mixture, *bounds), params, batches(), (0.0, 0.01), "l2", checks=False
        ),
        smoothing_curve(mixture, params, batches(), (0.0, 0.01), SMOOTHING, checks=False),
    )
    return [
        {"robust_accuracy": curve.certified_accuracy, "radii": curve.examples.radius.tolist()}
        for curve in curves
    ]


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("standard"):
        main()
