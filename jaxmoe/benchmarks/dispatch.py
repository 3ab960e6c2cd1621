"""A sparse top-1 mixture against one expert on all clips and the router."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmoe.attacks import cross_entropy
from jaxmoe.benchmarks.row import Row
from jaxmoe.benchmarks.subjects import clips, dtypes, even_mixture, scale
from jaxmoe.benchmarks.timing import compare


def run() -> list[Row]:
    """Forward, input gradient and params' gradient, for 4 experts and for 16."""
    rows = []
    for dtype in dtypes():
        rows += _rows(4, 32 * scale(), (1.25, 1.25, 1.5), dtype)
        rows += _rows(16, 16 * 8, (1.4, 1.4, 1.7), dtype)
    return rows


def _rows(num_experts: int, batch: int, bars: tuple[float, float, float], dtype: str) -> list[Row]:
    mixture, route, expert = even_mixture(num_experts, dtype)
    x, y = clips(batch, 8, 32)
    params = mixture.init(jax.random.key(0), x[:1])
    one = {**params, "experts": jax.tree.map(lambda leaf: leaf[0], params["experts"])}

    def plain(params, x):
        weights = jax.nn.softmax(route(params["router"], x), axis=-1)
        return expert(params["experts"], x) * jnp.max(weights, axis=-1, keepdims=True)

    detail = f"top-1 of {num_experts} / (one expert + router), {batch} clips 8x32x32, {dtype}"
    rows = []
    kinds = {"forward": _forward, "input gradient": _input_gradient, "params' gradient": _params}
    for (kind, make), bar in zip(kinds.items(), bars, strict=True):
        sparse, reference = jax.jit(make(mixture.apply)), jax.jit(make(plain))
        rows.append(
            compare(
                f"top-1 of {num_experts} / (one expert + router), {kind}, {dtype}",
                bar,
                {
                    "mixture": lambda sparse=sparse: sparse(params, x, y),
                    "expert and router": lambda reference=reference: reference(one, x, y),
                },
                detail,
            )
        )
    return rows


def _loss(apply: Callable) -> Callable:
    return lambda params, x, y: jnp.sum(cross_entropy(apply(params, x), y))


def _forward(apply: Callable) -> Callable:
    return lambda params, x, y: apply(params, x)


def _input_gradient(apply: Callable) -> Callable:
    return jax.grad(_loss(apply), argnums=1)


def _params(apply: Callable) -> Callable:
    return jax.grad(_loss(apply), argnums=0)
