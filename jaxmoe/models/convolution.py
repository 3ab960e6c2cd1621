"""A primitive like `lax.conv_general_dilated`, compiled for CPU into what is fast there.

It takes the same operands and params, and what other platforms compile is the native operation.
Its derivatives and its batched form are those of the native one with the primitive in its place, so
that they are fast too.
"""

import functools
from typing import Any

import jax
from jax import Array
from jax.extend.core import Primitive
from jax.extend.core.primitives import conv_general_dilated_p
from jax.interpreters import ad, batching, mlir

from jaxmoe.models.conv import jaxmoe_conv
from jaxmoe.models.conv_layouts import convolve_on_cpu
from jaxmoe.models.jaxprs import rewritten, with_primitive

convolution_p = Primitive("convolution")
convolution_p.def_effectful_abstract_eval(conv_general_dilated_p.abstract_eval)


def with_fast_convolutions(jaxpr: Any) -> Any:
    """The same program with `convolution_p` wherever it had `lax.conv_general_dilated`."""
    return with_primitive(jaxpr, conv_general_dilated_p, convolution_p, keep=jaxmoe_conv.__name__)


@functools.partial(jax.jit, static_argnums=2)
def _compiled(lhs: Array, rhs: Array, params: tuple) -> Array:
    return convolution_p.bind(lhs, rhs, **dict(params))


def _run(lhs: Array, rhs: Array, **params: Any) -> Array:
    return _compiled(lhs, rhs, tuple(params.items()))


def _lhs_gradient(gradient: Array, lhs: Any, rhs: Array, **params: Any) -> Array:
    def transpose(gradient, rhs):
        def linear(lhs):
            return conv_general_dilated_p.bind(lhs, rhs, **params)

        return jax.linear_transpose(linear, lhs.aval)(gradient)[0]

    return rewritten(transpose, with_fast_convolutions)(gradient, rhs)


def _rhs_gradient(gradient: Array, lhs: Array, rhs: Any, **params: Any) -> Array:
    def transpose(gradient, lhs):
        def linear(rhs):
            return conv_general_dilated_p.bind(lhs, rhs, **params)

        return jax.linear_transpose(linear, rhs.aval)(gradient)[0]

    return rewritten(transpose, with_fast_convolutions)(gradient, lhs)


def _batched(operands: tuple, axes: tuple, **params: Any) -> tuple[Array, int]:
    native = functools.partial(conv_general_dilated_p.bind, **params)
    return rewritten(jax.vmap(native, axes), with_fast_convolutions)(*operands), 0


def _native(lhs: Array, rhs: Array, **params: Any) -> Array:
    return conv_general_dilated_p.bind(lhs, rhs, **params)


convolution_p.def_impl(_run)
ad.defbilinear(convolution_p, _lhs_gradient, _rhs_gradient)
batching.primitive_batchers[convolution_p] = _batched
mlir.register_lowering(convolution_p, mlir.lower_fun(_native, multiple_results=False))
mlir.register_lowering(
    convolution_p, mlir.lower_fun(convolve_on_cpu, multiple_results=False), platform="cpu"
)
