"""Convolutions that users wrote, as fast on CPU as the library's own, without a change to a model.

XLA's gradients of convolutions are up to 13 times slower in loops on CPU than outside, and attacks
are loops over gradients. Attacks, evaluations and mixtures therefore take functions through
`fast_convolutions`; `native_convolutions` is the way to say no.
"""

import functools
from collections.abc import Callable

from jaxmoe.models.convolution import with_fast_convolutions
from jaxmoe.models.jaxprs import rewritten

_DECIDED = "decided_on_convolutions"  # an attribute of functions that stay as they are


def fast_convolutions(apply: Callable) -> Callable:
    """Returns the same function with convolutions that are fast on CPU, also within loops.

    Whatever the function is made of (Flax Linen or NNX, Equinox, Haiku, `jax.lax`) it is traced,
    and each `lax.conv_general_dilated` becomes a primitive with the same operands, options and
    derivatives. Values and gradients are the same up to float rounding: sums are in another order.
    It looks into `jit`, `vmap`, `scan`, `while_loop`, `cond`, `remat`, and derivatives of one's
    own. Programs for GPUs and TPUs are what they were. On CPU so are convolutions of integers and
    complex numbers, of more than 3 spatial axes, and kernel gradients of grouped ones.

    Args:
      apply: a pure function of arrays, such as `(params, x) -> logits`. A bound method of one of
        this library's modules is returned as it is: it has fast convolutions.

    Returns:
      A function of the same arguments, differentiable in reverse and forward mode.
    """
    if hasattr(apply, _DECIDED) or _is_ours(apply):
        return apply
    return _decided(rewritten(apply, with_fast_convolutions))


def native_convolutions(apply: Callable) -> Callable:
    """Returns the function marked, so that its convolutions stay XLA's own on every platform.

    `auto_attack(native_convolutions(apply), …)`: attacks, evaluations and mixtures then leave the
    function as it is.
    """

    @functools.wraps(apply)
    def call(*args, **kwargs):
        return apply(*args, **kwargs)

    return _decided(call)


def _decided(apply: Callable) -> Callable:
    setattr(apply, _DECIDED, True)
    return apply


def _is_ours(apply: Callable) -> bool:
    owner = type(getattr(apply, "__self__", None)).__module__
    return owner.split(".")[0] == __name__.split(".")[0]
