"""How finely numbers are computed: dtypes of sums, products, and what a function rounds to."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

# What accelerators multiply in fewer bits; the last stands for convolutions that users wrote.
PRODUCTS = ("dot_general", "conv_general_dilated", "convolution")
_BFLOAT16, _TENSORFLOAT32 = 2.0**-8, 2.0**-11  # the largest relative rounding errors


def accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """float32 for the half precisions, else `dtype` itself."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def with_exact_products(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function`, its float32 matmuls and convolutions in float32 on every platform.

    TPUs multiply "float32" in bfloat16 and GPUs in TF32 unless they are asked not to. A precision
    that the user has set (`jax_default_matmul_precision`) stays.
    """

    @functools.wraps(function)
    def exact(*args):
        if jax.config.jax_default_matmul_precision is not None:
            return function(*args)
        with jax.default_matmul_precision("highest"):
            return function(*args)

    return exact


def unit_roundoff(function: Callable[..., Any], *args: Any) -> float:
    """Returns the largest relative rounding error of one operation within `function(*args)`.

    It is half the spacing of the coarsest floats that are computed anywhere inside, whatever the
    dtype of the result: 2⁻²⁴ of float32, 2⁻⁸ of bfloat16; float32 products that an accelerator
    multiplies in bfloat16 or TF32 count as these. Nothing is run.
    """
    platform = jax.default_backend()
    worst = 0.0
    for program in programs_of(jax.make_jaxpr(function)(*args).jaxpr):
        for equation in program.eqns:
            made = [getattr(out.aval, "dtype", jnp.int32) for out in equation.outvars]
            floats = [dtype for dtype in made if jnp.issubdtype(dtype, jnp.floating)]
            worst = max(worst, *(float(jnp.finfo(dtype).eps) / 2 for dtype in floats), 0.0)
            if equation.primitive.name in PRODUCTS and platform != "cpu":
                worst = max(worst, _product_roundoff(equation.params["precision"], platform))
            if equation.primitive.name == "reduce_precision":
                worst = max(worst, 2.0 ** -(equation.params["mantissa_bits"] + 1))
    return worst


def _product_roundoff(asked: Any, platform: str) -> float:
    """The rounding of float32 operands by an accelerator that was asked for that precision."""
    asked = set(asked) if isinstance(asked, tuple) else {asked}
    if asked == {jax.lax.Precision.HIGHEST}:
        return 0.0
    passes = asked == {jax.lax.Precision.HIGH}  # three of bfloat16, on a TPU
    return _BFLOAT16 if platform == "tpu" and not passes else _TENSORFLOAT32


def programs_of(jaxpr: core.Jaxpr) -> Iterator[core.Jaxpr]:
    """Yields a program and all that it calls: branches, bodies of loops, functions."""
    yield jaxpr
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(equation.params, is_leaf=_is_program):
            if _is_program(value):
                yield from programs_of(getattr(value, "jaxpr", value))


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
