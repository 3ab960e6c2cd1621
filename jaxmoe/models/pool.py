"""Pooling on `[B, *S, C]`, with gradients that are fast on CPU.

Axes: B = batch, *S = spatial, C = channels.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float


def max_pool(
    x: Float[Array, "batch *spatial channels"],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "batch *out_spatial channels"]:
    """Maximum over windows, written as a maximum of shifted, strided slices.

    XLA's own gradient of a pooled maximum (`select_and_scatter`) is a scalar loop on CPU. Among
    equal maxima the gradient is split; its sum is kept.

    Args:
      x: floating.
      window: extent per spatial axis.
      strides: per spatial axis.
      padding: (low, high) per spatial axis, filled with -inf.

    Returns:
      An array of the dtype of `x`.
    """
    config = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    x = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), config)
    # Axis by axis: 3 + 3 + 3 slices in place of 27.
    for axis, (size, stride) in enumerate(zip(window, strides, strict=True), start=1):
        stop = x.shape[axis] - size + 1
        slices = [lax.slice_in_dim(x, i, i + stop, stride, axis) for i in range(size)]
        x = functools.reduce(jnp.maximum, slices)
    return x


def average_pool_to(
    x: Float[Array, "batch *spatial channels"], grid: Sequence[int]
) -> Float[Array, "batch *grid channels"]:
    """Averages over a grid of equal cells, each spatial axis cut as evenly as it can be.

    Cell i of n over N positions covers [floor(i N / n), ceil((i + 1) N / n)), as PyTorch's adaptive
    average pooling; an axis shorter than its grid repeats positions.

    Args:
      x: floating.
      grid: cells per spatial axis.

    Returns:
      An array of the dtype of `x`.
    """
    for axis, cells in enumerate(grid, start=1):
        size = x.shape[axis]
        weights = np.zeros((size, cells))
        for i in range(cells):
            low, high = i * size // cells, -(-(i + 1) * size // cells)
            weights[low:high, i] = 1.0 / (high - low)
        x = jnp.tensordot(x, jnp.asarray(weights, x.dtype), axes=(axis, 0))
        x = jnp.moveaxis(x, -1, axis)
    return x


def resize(
    x: Float[Array, "batch *spatial channels"], sizes: Sequence[int]
) -> Float[Array, "batch *sizes channels"]:
    """Linear interpolation to other sizes, corners not aligned; a product with a matrix per axis.

    Args:
      x: floating.
      sizes: per spatial axis.

    Returns:
      An array of the dtype of `x`.
    """
    for axis, size in enumerate(sizes, start=1):
        old = x.shape[axis]
        if size == old:
            continue
        # Where each new position lies among the old ones; beyond the border it is the border.
        places = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        weights = np.maximum(0.0, 1.0 - np.abs(places[None] - np.arange(old)[:, None]))
        x = jnp.tensordot(x, jnp.asarray(weights, x.dtype), axes=(axis, 0))
        x = jnp.moveaxis(x, -1, axis)
    return x
