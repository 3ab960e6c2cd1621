"""One convolution for every platform, with 1, 2 or 3 spatial axes, channels last.

XLA on CPU is slow at 3D convolutions, and within a loop body its gradients of any convolution miss
the fast path by 10-60x (jax-ml/jax issue 12868). Attacks are loops over gradients, so here the
lowering is chosen per platform: on CPU the sums of 2D convolutions and matmuls of `conv_taps`,
elsewhere the native operation and its native gradients.

Axes: B = batch, *S = spatial (time, height, width), C = input channels, O = output channels,
*K = the kernel's window.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from jaxmoe.models.conv_kernel_gradient import taps_kernel_gradient
from jaxmoe.models.conv_taps import conv_taps, taps_input_gradient
from jaxmoe.models.conv_window import Window, conv_native, make_window

CONV_OUTPUT = "conv"  # its name to policies of `jax.checkpoint`


def conv(
    x: Float[Array, "batch *spatial in_channels"],
    kernel: Float[Array, "*window in_channels out_channels"],
    *,
    strides: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Float[Array, "batch *out_spatial out_channels"]:
    """Convolves (cross-correlates) `x` with `kernel`, fast on CPU also inside loops.

    Reverse-mode differentiable to any order in both arguments; `jit`, `vmap`, `scan`, `cond` and
    `remat` apply. Half-precision inputs are accumulated in float32. A precision that
    `jax.default_matmul_precision` sets around the call holds for both gradients too.

    Args:
      x: any floating dtype, with 1, 2 or 3 spatial axes.
      kernel: of the same dtype as `x`.
      strides: one integer, or one per spatial axis.
      padding: "SAME", "VALID", an integer for all sides, or a pair (low, high) per spatial axis, in
        positions of `x` filled with zeros.
      dilation: spacing between the kernel's taps, one integer or one per spatial axis.

    Returns:
      An array of the dtype of `x`, as `lax.conv_general_dilated` would give.

    Raises:
      ValueError: shapes or dtypes disagree, or an option is out of its range.
    """
    window = make_window(x, kernel, strides, padding, dilation)
    # Gradients are traced later, where another precision may hold.
    form = _Form(window, jax.config.jax_default_matmul_precision)
    return checkpoint_name(jaxmoe_conv(x, kernel, form), CONV_OUTPUT)


class _Form(NamedTuple):
    """Everything static about a convolution and its gradients but the shapes."""

    window: Window
    precision: Any  # as `jax.default_matmul_precision` takes it


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def jaxmoe_conv(x: Array, kernel: Array, form: _Form) -> Array:
    """`conv` with its options resolved; `fast_convolutions` knows it by this name."""
    return _by_platform(conv_taps, conv_native, form)(x, kernel)


def _conv_forward(x: Array, kernel: Array, form: _Form) -> tuple[Array, tuple[Array, Array]]:
    return jaxmoe_conv(x, kernel, form), (x, kernel)


def _conv_backward(form: _Form, residuals: tuple, gradient: Array) -> tuple[Array, Array]:
    # Two separate calls, so that the compiler drops the one that nobody reads.
    x, kernel = residuals
    input_gradient = _by_platform(taps_input_gradient, _native_input_gradient, form)
    kernel_gradient = _by_platform(taps_kernel_gradient, _native_kernel_gradient, form)
    return input_gradient(x, kernel, gradient), kernel_gradient(x, kernel, gradient)


jaxmoe_conv.defvjp(_conv_forward, _conv_backward)


def _native_input_gradient(x: Array, kernel: Array, gradient: Array, window: Window) -> Array:
    return jax.vjp(lambda x: conv_native(x, kernel, window), x)[1](gradient)[0]


def _native_kernel_gradient(x: Array, kernel: Array, gradient: Array, window: Window) -> Array:
    return jax.vjp(lambda kernel: conv_native(x, kernel, window), kernel)[1](gradient)[0]


def _by_platform(cpu: Callable, other: Callable, form: _Form) -> Callable[..., Array]:
    cpu, other = (functools.partial(choice, window=form.window) for choice in (cpu, other))

    def compute(*operands):
        with jax.default_matmul_precision(form.precision):
            return lax.platform_dependent(*operands, cpu=cpu, default=other)

    return compute


class Conv(nn.Module):
    """A convolution layer on `[B, *S, C]`, computed by `conv`.

    Attributes:
      features: O, the number of output channels.
      kernel_size: the window, one integer per spatial axis.
      strides: as in `conv`.
      padding: as in `conv`.
      dilation: as in `conv`.
      use_bias: whether a bias `[O]` is added.
      dtype: the dtype of the computation and of the result; params stay float32.
      kernel_init: by default He et al. 2015, normal with fan-out (https://arxiv.org/abs/1502.01852).
    """

    features: int
    kernel_size: Sequence[int]
    strides: int | Sequence[int] = 1
    padding: str | int | Sequence[tuple[int, int]] = "SAME"
    dilation: int | Sequence[int] = 1
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
        2.0, "fan_out", "normal"
    )

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial in_channels"]
    ) -> Float[Array, "batch *out_spatial features"]:
        """Convolves `x`; see `conv`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            y = y + jnp.broadcast_to(bias.astype(self.dtype), y.shape)
        return y
