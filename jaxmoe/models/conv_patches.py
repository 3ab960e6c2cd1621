"""A convolution whose windows are patches side by side, as a transformer's first: one matmul.

As a convolution its gradients are 40x its cost on CPU: the input's inflates 16 x 16 positions to
place each one.

Axes: B = batch, T H W = time, height, width, C = input channels, O = output channels,
*K = the kernel's window, P = values of a patch, the product of K and C.
"""

import math
from collections.abc import Sequence

from jax import Array

from jaxmoe.models.conv_window import Window, zero_pad


def has_patches(kernel: Array, window: Window) -> bool:
    """Says if the windows of `kernel [*K, C, O]` meet no padding, and each other nowhere."""
    taps = kernel.shape[:-2]
    no_gaps = all(d == 1 or k == 1 for k, d in zip(taps, window.dilation, strict=True))
    aligned = taps == window.strides and not any(map(any, window.padding))
    return no_gaps and aligned and math.prod(taps) > 1


def conv_patches(x: Array, kernel: Array) -> Array:
    """The convolution of `x [B, T, H, W, C]` with `kernel [*K, C, O]`."""
    return _patches(x, kernel.shape[:-2]) @ kernel.reshape(-1, kernel.shape[-1])


def patches_input_gradient(sizes: Sequence[int], kernel: Array, gradient: Array) -> Array:
    """The gradient in `x`, of `sizes` T, H and W, of `sum(conv_patches(x, kernel) * gradient)`."""
    batch, *counts, _ = gradient.shape
    taps, channels = kernel.shape[:-2], kernel.shape[-2]
    x = gradient @ kernel.reshape(-1, kernel.shape[-1]).T
    x = x.reshape(batch, *counts, *taps, channels).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    covered = [count * size for count, size in zip(counts, taps, strict=True)]
    rest = [(0, size - n) for size, n in zip(sizes, covered, strict=True)]
    return zero_pad(x.reshape(batch, *covered, channels), [(0, 0), *rest, (0, 0)])


def patches_kernel_gradient(x: Array, kernel: Array, gradient: Array) -> Array:
    """The gradient in `kernel` of `sum(conv_patches(x, kernel) * gradient)`; reads its shape."""
    patches = _patches(x, kernel.shape[:-2])
    patches = patches.reshape(-1, patches.shape[-1])
    return (patches.T @ gradient.reshape(-1, gradient.shape[-1])).reshape(kernel.shape)


def _patches(x: Array, taps: Sequence[int]) -> Array:
    """`[B, T / K, H / K, W / K, P]`; what no whole patch covers is left out."""
    batch, *sizes, channels = x.shape
    counts = [size // k for size, k in zip(sizes, taps, strict=True)]
    ends = [(0, count * k - size) for size, count, k in zip(sizes, counts, taps, strict=True)]
    x = zero_pad(x, [(0, 0), *ends, (0, 0)])
    split = [n for pair in zip(counts, taps, strict=True) for n in pair]
    x = x.reshape(batch, *split, channels).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(batch, *counts, math.prod(taps) * channels)
