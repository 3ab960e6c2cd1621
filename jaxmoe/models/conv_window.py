"""A convolution's static geometry, and the native operation that serves as reference.

Axes: B = batch, T = time, *S = spatial, C = input channels, O = output channels, *K = window.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxmoe.models.precision import accumulation_dtype

# With so few channels (pixels) CPU code is bound by its overhead per position, not by arithmetic:
# a stem's temporal taps are twice as fast as channels of one 2D convolution or matmul.
FEW_CHANNELS = 8

_SPATIAL = {1: "W", 2: "HW", 3: "DHW"}


class Window(NamedTuple):
    """Everything static about a convolution but the shapes; one entry per spatial axis."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]  # zeros (before, after)
    dilation: tuple[int, ...]  # of the kernel


def make_window(
    x: Array,
    kernel: Array,
    strides: int | Sequence[int],
    padding: str | int | Sequence[tuple[int, int]],
    dilation: int | Sequence[int],
) -> Window:
    """Checks the operands of a convolution and resolves its options to explicit numbers.

    Raises:
      ValueError: shapes or dtypes disagree, or an option is out of its range.
    """
    rank = x.ndim - 2
    if rank not in _SPATIAL:
        raise ValueError(f"x must be [B, *spatial, C] with 1 to 3 spatial axes, got {x.shape}")
    if kernel.ndim != x.ndim or kernel.shape[-2] != x.shape[-1]:
        raise ValueError(
            f"kernel must be [*window, {x.shape[-1]}, O] for x {x.shape}, got {kernel.shape}"
        )
    if kernel.dtype != x.dtype:
        raise ValueError(f"kernel must have the dtype of x, {x.dtype}, got {kernel.dtype}")
    strides = _per_axis("strides", strides, rank)
    dilation = _per_axis("dilation", dilation, rank)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel.shape, dilation, strict=False)]
    pads = _resolve_padding(padding, x.shape[1:-1], extents, strides)
    for axis, (size, extent, pad) in enumerate(zip(x.shape[1:-1], extents, pads, strict=True)):
        if size + sum(pad) < extent:
            raise ValueError(
                f"spatial axis {axis} of x has {size} + {sum(pad)} padded positions, "
                f"fewer than the {extent} that the kernel spans"
            )
    return Window(strides, pads, dilation)


def conv_native(x: Array, kernel: Array, window: Window) -> Array:
    """The platform's own convolution; `x [B, *S, C]`, `kernel [*K, C, O]`."""
    spatial = _SPATIAL[x.ndim - 2]
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
    )


def positions_of_tap(
    tap: int, axis: int, size: int, out: int, window: Window, inflation: int = 1
) -> tuple[list[int], list[int]]:
    """The positions on an axis that a tap reads and that are no padding, and where each adds to."""
    read, write = [], []
    for target in range(out):
        start = target * window.strides[axis] - window.padding[axis][0]
        position, between = divmod(start + tap * window.dilation[axis], inflation)
        if between == 0 and 0 <= position < size:
            read.append(position)
            write.append(target)
    return read, write


def as_slice(progression: list[int]) -> slice:
    """The slice that selects an arithmetic progression."""
    step = progression[1] - progression[0] if len(progression) > 1 else 1
    return slice(progression[0], progression[-1] + 1, step)


def as_3d(x: Array, kernel: Array, window: Window) -> tuple[Array, Array, Window]:
    """Leading axes of one position and one tap, and float32 in place of half precision.

    The fast routines on CPU know no narrower type, and partial sums over taps stay exact.
    """
    dtype = accumulation_dtype(x.dtype)
    missing = 5 - x.ndim
    ones = (1,) * missing
    window = Window(
        ones + window.strides, ((0, 0),) * missing + window.padding, ones + window.dilation
    )
    x = x.astype(dtype).reshape(x.shape[0], *ones, *x.shape[1:])
    return x, kernel.astype(dtype).reshape(*ones, *kernel.shape), window


def inflated(size: int, inflation: int) -> int:
    """The size of an axis once `inflation - 1` zeros stand between its positions."""
    return (size - 1) * inflation + 1


def out_sizes(sizes: Sequence[int], kernel: Sequence[int], window: Window) -> list[int]:
    """The convolution's output positions per axis."""
    return [
        (n + sum(pad) - (k - 1) * d - 1) // s + 1
        for n, k, s, pad, d in zip(sizes, kernel, *window, strict=False)
    ]


def zero_pad(x: Array, edges: Sequence[tuple[int, ...]]) -> Array:
    """Pads every axis by (low, high) or (low, high, between), negative numbers crop."""
    if not any(map(any, edges)):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), [(*edge, 0)[:3] for edge in edges])


def _per_axis(name: str, value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank or any(v < 1 for v in values):
        raise ValueError(f"{name} must be one or {rank} positive integers, got {value}")
    return values


def _resolve_padding(
    padding: str | int | Sequence[tuple[int, int]],
    sizes: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(f"padding must be 'SAME', 'VALID' or pairs, got {padding!r}")
        return tuple(
            (int(a), int(b)) for a, b in lax.padtype_to_pads(sizes, extents, strides, padding)
        )
    if isinstance(padding, int):
        padding = ((padding, padding),) * len(sizes)
    pads = tuple((int(low), int(high)) for low, high in padding)
    if len(pads) != len(sizes) or any(low < 0 or high < 0 for low, high in pads):
        raise ValueError(f"padding must be {len(sizes)} pairs of integers >= 0, got {padding}")
    return pads
