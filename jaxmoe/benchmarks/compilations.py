"""How often an attack compiles over a sweep of ε."""

import numpy as np

from jaxmoe.attacks import AttackSettings
from jaxmoe.benchmarks.row import Row, counted
from jaxmoe.benchmarks.subjects import linear_clips, linear_mixture
from jaxmoe.evaluation import evaluate_suite

_ATTACKS = ("pgd", "tlga-r", "j-tlga")
_EPSILONS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)


def run() -> list[Row]:
    """One row: the most compilations of any attack."""
    mixture, params = linear_mixture()
    batch = {
        "clip": np.asarray(linear_clips(4)),
        "label": np.arange(4, dtype=np.int32) % 3,
        "index": np.arange(4, dtype=np.int32),
        "valid": np.ones(4, bool),
    }
    result = evaluate_suite(
        mixture,
        params,
        lambda: [batch],
        attacks=_ATTACKS,
        epsilons=_EPSILONS,
        settings=AttackSettings(steps=2),
        probe_batches=0,
        checks=False,
    )
    most = max(result.compilations[name] for name in _ATTACKS)
    detail = f"{', '.join(_ATTACKS)} at {len(_EPSILONS)} ε each"
    return [counted("compilations of an attack in a sweep of 4 ε", most, 1, detail)]
