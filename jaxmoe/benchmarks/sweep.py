"""A sweep of ε in one program for each attack against a run of its own for each attack and ε."""

import time

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxmoe.attacks import AttackSettings
from jaxmoe.benchmarks.row import Row, machine
from jaxmoe.benchmarks.subjects import clips, small_resnet
from jaxmoe.evaluation import Grid, sweep_grid
from jaxmoe.mixture import Mixture, from_modules
from jaxmoe.models import ConvRouter

BAR = 0.4
ATTACKS = ("fgsm", "pgd", "mi-fgsm", "tlga-r", "pgd-e", "tla-m", "j-tlga")
EPSILONS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
STEPS = 10


def run() -> list[Row]:
    """One row: 4 ε × 7 attacks ÷ 28 runs, compilation included."""
    router = ConvRouter(num_experts=4, width=8)
    mixture = from_modules(router, small_resnet(), num_experts=4)
    x, y = clips(8, 4, 32)
    params = jax.jit(mixture.init)(jax.random.key(0), x[:1])
    index = np.arange(8, dtype=np.int32)
    batch = {"clip": np.asarray(x), "label": np.asarray(y), "index": index, "valid": index >= 0}
    # Programs kept on this machine by the run before would make the next one's compilation free.
    kept = jax.config.jax_enable_compilation_cache
    _keep_programs(False)
    try:
        together = _seconds(mixture, params, batch, ATTACKS, EPSILONS)
        alone = [
            _seconds(mixture, params, batch, (attack,), (epsilon,))
            for attack in ATTACKS
            for epsilon in EPSILONS
        ]
    finally:
        _keep_programs(kept)
    ratio = together / sum(alone)
    return [
        Row(
            name="sweep of 4 ε x 7 attacks / 28 runs, with compilation",
            ratio=ratio,
            bar=BAR,
            spread=(ratio, ratio),
            detail=f"{', '.join(ATTACKS)}, {STEPS} steps, 8 clips 4x32x32, top-1 of 4 3D ResNets",
            seconds={"sweep": together, "28 runs": sum(alone)},
            machine=machine(),
        )
    ]


def _keep_programs(kept: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", kept)
    compilation_cache.reset_cache()  # JAX looks at the setting once


def _seconds(
    mixture: Mixture, params, batch: dict, attacks: tuple[str, ...], epsilons: tuple[float, ...]
) -> float:
    jax.clear_caches()
    start = time.perf_counter()
    settings = AttackSettings(steps=STEPS)
    sweep_grid(
        mixture,
        params,
        lambda: [batch],
        attacks=attacks,
        grid=Grid(epsilons),
        settings=settings,
        say=lambda line: None,  # that random params guess
    )
    return time.perf_counter() - start
