"""Programs that compute in float32 to the last bit on every platform, as certificates assume.

TPUs multiply "float32" matrices in bfloat16, and GPUs may in TF32, unless the highest precision is
asked for. A constant bounds how fast a function changes, not how its values are rounded.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxmoe.models.precision import PRODUCTS, programs_of

_HIGHEST = jax.lax.Precision.HIGHEST


def at_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function`, jitted, its matmuls and convolutions at the highest precision.

    Calling it raises a ValueError where any number inside has fewer than 32 bits or a product asks
    for less by itself.
    """

    @jax.jit
    @functools.wraps(function)
    def exact(*args):
        check_dtypes("certificate", args)
        with jax.default_matmul_precision("highest"):
            program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        _check(program.jaxpr)
        outputs = core.jaxpr_as_fun(program)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return exact


def check_dtypes(name: str, tree: Any) -> None:
    """The floats of a tree have 32 bits or more; raises a ValueError that begins with `name`."""
    for leaf in jax.tree.leaves(tree):
        _check_dtype(name, jnp.result_type(leaf))


def computes_in_half(function: Callable[..., Any], *args: Any) -> bool:
    """Returns whether any number inside has fewer than 32 bits."""
    program = jax.make_jaxpr(function)(*args).jaxpr
    return any(_is_half(dtype) for inner in programs_of(program) for dtype in _dtypes(inner))


def _is_half(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def _dtypes(program: core.Jaxpr) -> list[Any]:
    """The types of all that a program reads and makes."""
    made = [out for equation in program.eqns for out in equation.outvars]
    variables = [*program.invars, *program.constvars, *made]
    return [getattr(variable.aval, "dtype", jnp.int32) for variable in variables]


def _check_dtype(name: str, dtype: Any) -> None:
    if _is_half(dtype):
        raise ValueError(
            f"{name}: {jnp.dtype(dtype).name} rounds outputs, which no constant bounds; expected "
            "float32 or wider (smoothing takes any)"
        )


def _check(jaxpr: core.Jaxpr) -> None:
    for inner in programs_of(jaxpr):
        for dtype in _dtypes(inner):
            _check_dtype("certificate", dtype)
        for equation in inner.eqns:
            asked = equation.params.get("precision")
            if equation.primitive.name in PRODUCTS and asked not in (_HIGHEST, (_HIGHEST,) * 2):
                raise ValueError(
                    f"certificate: the model multiplies with precision {asked}, which no constant "
                    "bounds; expected the highest, or none of its own"
                )
            if equation.primitive.name == "reduce_precision":
                raise ValueError(
                    "certificate: the model rounds by reduce_precision, which no constant bounds; "
                    "expected float32 throughout (smoothing takes any)"
                )
