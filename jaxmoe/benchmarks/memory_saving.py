"""What rematerialisation and bfloat16 save of a training gradient's memory, and their time."""

import functools

import jax
import jax.numpy as jnp

from jaxmoe.attacks import cross_entropy
from jaxmoe.benchmarks.row import Row, counted
from jaxmoe.benchmarks.subjects import CLASSES, clips, dtypes, scale
from jaxmoe.benchmarks.timing import compare
from jaxmoe.models import ResNet

# XLA for CPUs drops the barriers that keep blocks apart, and saves nothing.
REMAT_MEMORY = {"cpu": 1.1}
ELSEWHERE = 0.8
REMAT_TIME = 1.5  # one more forward pass beside a forward and two backward ones
BFLOAT16_MEMORY, BFLOAT16_TIME = 0.8, 1.0


def run() -> list[Row]:
    """Two rows for each way; none of bfloat16 on CPUs, which have none that is fast."""
    x, y = clips(8 * scale(), 8, 32)
    plain = _gradient("float32", False, x, y)
    rows = _rows("rematerialised", "plain", _gradient("float32", True, x, y), plain)
    rows = _with_bars(rows, REMAT_MEMORY.get(jax.default_backend(), ELSEWHERE), REMAT_TIME)
    if "bfloat16" in dtypes():
        other = _rows("bfloat16", "float32", _gradient("bfloat16", False, x, y), plain)
        rows += _with_bars(other, BFLOAT16_MEMORY, BFLOAT16_TIME)
    return rows


def _gradient(dtype: str, remat: bool, x, y):
    """A compiled gradient in the params of a network of eight blocks, and its params."""
    model = ResNet(
        CLASSES, width=24, stage_sizes=(4, 4), stem="small", remat=remat, dtype=jnp.dtype(dtype)
    )
    params = model.init(jax.random.key(0), x[:1])
    gradient = jax.jit(jax.grad(lambda p: jnp.mean(cross_entropy(model.apply(p, x), y))))
    return gradient.lower(params).compile(), params


def _rows(name: str, other: str, this, that) -> list[Row]:
    memory = [each[0].memory_analysis().temp_size_in_bytes for each in (this, that)]
    sides = {side: functools.partial(*each) for side, each in ((name, this), (other, that))}
    return [
        counted(
            f"temporary memory, {name} / {other}",
            memory[0] / memory[1],
            0.0,
            f"{memory[0]:,} / {memory[1]:,} bytes of a gradient in the params",
        ),
        compare(f"a gradient in the params, {name} / {other}", 0.0, sides, "eight residual blocks"),
    ]


def _with_bars(rows: list[Row], *bars: float) -> list[Row]:
    return [row._replace(bar=bar) for row, bar in zip(rows, bars, strict=True)]
