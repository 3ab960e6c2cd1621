"""A compiled PGD against as many single jitted gradient steps of the same objective."""

import jax
import jax.numpy as jnp

from jaxmoe.attacks import AttackSettings, cross_entropy, pgd
from jaxmoe.benchmarks.row import Row
from jaxmoe.benchmarks.subjects import clips, dtypes, resnet, scale
from jaxmoe.benchmarks.timing import compare
from jaxmoe.threat import ThreatModel

STEPS = 10
BAR = 1.10


def run() -> list[Row]:
    """One row for each computation type."""
    x, y = clips(8 * scale(), 8, 64)
    return [_row(dtype, x, y) for dtype in dtypes()]


def _row(dtype: str, x: jax.Array, y: jax.Array) -> Row:
    model = resnet(dtype)
    params = model.init(jax.random.key(0), x)
    attack = jax.jit(pgd(model.apply, ThreatModel(), AttackSettings(steps=STEPS)))
    gradient = jax.jit(
        jax.value_and_grad(
            lambda x_adv, params, y: jnp.sum(cross_entropy(model.apply(params, x_adv), y))
        )
    )
    key = jax.random.key(1)
    return compare(
        f"PGD-{STEPS} / {STEPS} gradient steps, {dtype}",
        BAR,
        {
            "attack": lambda: attack(key, params, x, y),
            "gradient step": lambda: gradient(x, params, y),
        },
        f"3D ResNet of width 32, four stages of one block, clips {x.shape}",
        times=STEPS,
    )
