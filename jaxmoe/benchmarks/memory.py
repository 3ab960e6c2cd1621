"""Temporary memory of a 50-step attack against a 10-step one, from the compiled programs."""

import jax

from jaxmoe.attacks import AttackSettings, pgd
from jaxmoe.benchmarks.row import Row, counted
from jaxmoe.benchmarks.subjects import clips, small_resnet
from jaxmoe.threat import ThreatModel

BAR = 1.02


def run() -> list[Row]:
    """One row; no row where the platform's compiler does not tell."""
    model = small_resnet()
    x, y = clips(4, 8, 32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)

    def temporary_bytes(steps: int) -> int | None:
        attack = jax.jit(pgd(model.apply, ThreatModel(), AttackSettings(steps=steps)))
        analysis = attack.lower(jax.random.key(1), params, x, y).compile().memory_analysis()
        return analysis and analysis.temp_size_in_bytes

    few, many = temporary_bytes(10), temporary_bytes(50)
    if not few or not many:
        return []
    detail = f"{many:,} bytes of PGD-50 / {few:,} bytes of PGD-10, clips {x.shape}"
    return [counted("temporary memory of 50 steps / 10 steps", many / few, BAR, detail)]
