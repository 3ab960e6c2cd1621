"""Any convolution on CPU: in the one layout that is fast there, then back.

A gradient is a convolution too, with its axes in other roles: the input's has the kernel's channels
swapped, the kernel's has batch and channels swapped and a window as large as an image. Within a
loop body XLA compiles those slowly, so that here axes are moved explicitly.

Axes: N = batch, *S = spatial, C = input channels, O = output channels, *K = the kernel's window.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core.primitives import conv_general_dilated_p

from jaxmoe.models.conv_kernel_gradient import taps_kernel_gradient
from jaxmoe.models.conv_taps import conv_taps
from jaxmoe.models.conv_window import Window, inflated, zero_pad
from jaxmoe.models.precision import accumulation_dtype

_FLOATS = ("float16", "bfloat16", "float32", "float64")
# A 7x7x7 kernel's gradient has as many positions; of more, unrolled matmuls compile for too long.
_MOST_POSITIONS = 343


def convolve_on_cpu(lhs: Array, rhs: Array, **params: Any) -> Array:
    """`lax.conv_general_dilated` with the params of its primitive, its sums in another order.

    Integers, complex numbers, grouped batches and accumulation in a wider dtype stay native.
    """
    if not _covered(lhs, rhs, params):
        return conv_general_dilated_p.bind(lhs, rhs, **params)
    numbers, dtype = params["dimension_numbers"], accumulation_dtype(lhs.dtype)
    x = jnp.transpose(lhs, _channels_last(numbers.lhs_spec)).astype(dtype)
    out_channels, in_channels, *spatial = numbers.rhs_spec
    kernel = jnp.transpose(rhs, (*spatial, in_channels, out_channels)).astype(dtype)
    window = Window(params["window_strides"], params["padding"], params["rhs_dilation"])
    y = _convolve(x, kernel, window, params["lhs_dilation"], params["feature_group_count"])
    y = jnp.transpose(y, np.argsort(_channels_last(numbers.out_spec)))
    return y.astype(params["preferred_element_type"] or lhs.dtype)


def _covered(lhs: Array, rhs: Array, params: dict[str, Any]) -> bool:
    dtype, out_dtype = lhs.dtype, jnp.dtype(params["preferred_element_type"] or lhs.dtype)
    floats = dtype == rhs.dtype and dtype.name in _FLOATS and out_dtype.name in _FLOATS
    return (
        floats
        and jnp.finfo(out_dtype).bits <= jnp.finfo(accumulation_dtype(dtype)).bits
        and params["batch_group_count"] == 1
        and 3 <= lhs.ndim <= 5
        and 0 not in (*lhs.shape, *rhs.shape)
    )


def _channels_last(specification: tuple[int, ...]) -> tuple[int, ...]:
    """Batch, spatial axes, channels; JAX names channels second."""
    batch, channels, *spatial = specification
    return (batch, *spatial, channels)


def _convolve(
    x: Array, kernel: Array, window: Window, inflation: tuple[int, ...], groups: int
) -> Array:
    """`x [N, *S, C]`, spread out by zeros, with `kernel [*K, C / groups, O]`."""
    taps = kernel.shape[:-2]
    spread = tuple(inflated(n, f) for n, f in zip(x.shape[1:], inflation, strict=False))
    sizes = tuple(
        max((n + sum(pad) - (k - 1) * d - 1) // s + 1, 0)
        for n, k, s, pad, d in zip(spread, taps, *window, strict=True)
    )
    # The ways below place outputs by a stride or by an inflation, not by both of one axis.
    both = any(s > 1 and f > 1 for s, f in zip(window.strides, inflation, strict=True))
    if groups > 1 or 0 in sizes or both:
        return _in_this_layout(x, kernel, window, inflation, groups)
    if math.prod(sizes) < math.prod(taps) and math.prod(sizes) <= _MOST_POSITIONS:
        return _position_by_position(x, kernel, window, inflation, sizes)
    # One tap is a matmul. A window larger than the frame is off XLA's fast routine.
    if x.ndim == 5 or math.prod(taps) == 1 or math.prod(x.shape[1:-1]) < math.prod(taps):
        return conv_taps(x, kernel, window, inflation)
    if max(inflation) > 1 and max(*window.strides, *window.dilation) == 1:
        return _phases_as_channels(x, kernel, window, inflation, sizes)
    return _in_this_layout(x, kernel, window, inflation, groups)


def _in_this_layout(
    x: Array, kernel: Array, window: Window, inflation: tuple[int, ...], groups: int = 1
) -> Array:
    spatial = "DHW"[5 - x.ndim :]
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        lhs_dilation=inflation,
        rhs_dilation=window.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups,
    )


def _position_by_position(
    x: Array, kernel: Array, window: Window, inflation: tuple[int, ...], sizes: tuple[int, ...]
) -> Array:
    """Few output positions of a large window: one matmul for each, as for a kernel's gradient.

    There the output's positions are taps, N and C have swapped roles, and `kernel` is a gradient.
    """
    edges = [
        # What the last position reads of the high edge, and no more.
        (low, (out - 1) * s + (k - 1) * d + 1 - low - inflated(n, f), f - 1)
        for n, f, k, out, s, (low, _), d in zip(
            x.shape[1:], inflation, kernel.shape, sizes, *window, strict=False
        )
    ]
    x = jnp.swapaxes(zero_pad(x, [(0, 0), *edges, (0, 0)]), 0, -1)
    gradient = jnp.moveaxis(kernel, -2, 0)
    swapped = Window(window.dilation, ((0, 0),) * len(sizes), window.strides)
    shape_alone = jnp.zeros((*sizes, x.shape[-1], kernel.shape[-1]), x.dtype)
    return jnp.moveaxis(taps_kernel_gradient(x, shape_alone, gradient, swapped), -2, 0)


def _phases_as_channels(
    x: Array, kernel: Array, window: Window, inflation: tuple[int, ...], sizes: tuple[int, ...]
) -> Array:
    """A convolution of a spread out `x`, as of a stride's gradient, without multiplying its zeros.

    Output position f q + r, of phase r, meets those taps alone that fall on no zero. One
    convolution of `x` itself has the phases of all positions q as output channels.
    """
    rank, padding = len(sizes), []
    edges, split, counts = [], [], []
    for n, k, f, (low, _), out in zip(
        x.shape[1:], kernel.shape, inflation, window.padding, sizes, strict=False
    ):
        before = f - 1 - low % f
        window_size, count = -(-(before + k) // f), -(-out // f)
        edges.append((before, window_size * f - before - k))
        split += [window_size, f]
        padding.append((low // f, count + window_size - 1 - n - low // f))
        counts.append(count)
    kernel = zero_pad(kernel, [*edges, (0, 0), (0, 0)]).reshape(*split, *kernel.shape[-2:])
    kernel = jnp.flip(kernel, tuple(range(1, 2 * rank, 2)))
    windows, phases = range(0, 2 * rank, 2), range(1, 2 * rank, 2)
    kernel = jnp.transpose(kernel, (*windows, 2 * rank, *phases, 2 * rank + 1))
    features = kernel.shape[-1]
    kernel = kernel.reshape(*kernel.shape[: rank + 1], -1)
    ones = (1,) * rank
    y = _in_this_layout(x, kernel, Window(ones, tuple(padding), ones), ones)
    y = y.reshape(x.shape[0], *counts, *inflation, features)
    order = [axis for i in range(1, rank + 1) for axis in (i, i + rank)]
    y = jnp.transpose(y, (0, *order, 2 * rank + 1))
    y = y.reshape(x.shape[0], *(q * f for q, f in zip(counts, inflation, strict=True)), features)
    return y[(slice(None), *(slice(size) for size in sizes))]
