"""Residual blocks, and the ways in which they see time.

A block sees time in one of `CONVOLUTIONS`: "full", windows and strides along every axis; "space",
none along time; "first", its first convolution alone has a window along time, and no stride;
"factored", each convolution in space, then in time; "shift", as "space", of channels that come from
the frames before and after.

Axes: B = batch, *S = spatial ([T, H, W] or [H, W]), C = channels.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.conv import Conv

CONVOLUTIONS = ("full", "space", "first", "factored", "shift")
SHORTCUTS = ("projection", "zero_pad", "zero_pad_around")
SHIFTED_SHARE = 8  # an eighth of the channels comes from the next frame, another from the last


def centred_conv(
    features: int,
    window: Sequence[int],
    strides: int | Sequence[int] = 1,
    dilation: int = 1,
    **fields,
) -> Conv:
    """Returns a convolution whose windows, all odd, are centred: half a window of zeros a side."""
    padding = [(dilation * (size // 2),) * 2 for size in window]
    return Conv(features, tuple(window), strides, padding, dilation, **fields)


class FactoredConv(nn.Module):
    """A convolution in space, a norm and ReLU, and a convolution in time: "(2+1)D".

    Tran et al. 2018, section 3.5, https://arxiv.org/abs/1711.11248.

    Attributes:
      features: output channels.
      inner_features: channels between the two.
      window: in time, height and width.
      strides: as `window`.
      norm: builds a normalisation layer.
      dtype: of the computation.
    """

    features: int
    inner_features: int
    window: Sequence[int]
    strides: Sequence[int]
    norm: Callable[..., nn.Module]
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time height width channels"]
    ) -> Float[Array, "batch out_time out_height out_width features"]:
        """Convolves `x`."""
        (time, *space), (step, *stride) = self.window, self.strides
        x = centred_conv(
            self.inner_features, (1, *space), (1, *stride), dtype=self.dtype, name="space"
        )(x)
        x = jax.nn.relu(self.norm(name="norm")(x))
        return centred_conv(
            self.features, (time, 1, 1), (step, 1, 1), dtype=self.dtype, name="time"
        )(x)


def factored_features(in_channels: int, features: int) -> int:
    """Channels inside a factored convolution that has as many params as a full one of width 3.

    Tran et al. 2018, section 3.5, https://arxiv.org/abs/1711.11248.
    """
    return max(1, 27 * in_channels * features // (9 * in_channels + 3 * features))


def temporal_shift(
    x: Float[Array, "batch time height width channels"],
) -> Float[Array, "batch time height width channels"]:
    """Moves an eighth of the channels a frame back in time, the next eighth a frame forth.

    Zeros enter at the ends. Lin et al. 2019, figure 1b, https://arxiv.org/abs/1811.08383.
    """
    share = x.shape[-1] // SHIFTED_SHARE
    edge = ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0))
    back = jnp.pad(x[:, 1:, ..., :share], edge)
    edge = ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0))
    forth = jnp.pad(x[:, :-1, ..., share : 2 * share], edge)
    return jnp.concatenate([back, forth, x[..., 2 * share :]], axis=-1)


class Block(nn.Module):
    """The fields of both blocks, their shortcut and their convolutions.

    Attributes:
      features: channels of the convolutions of width 3.
      stride: of the first of them and of the shortcut, along height and width, and along time where
        `convolution` strides it.
      norm: builds a normalisation layer.
      shortcut: where the shape changes: "projection" (option B), or, without params (option A),
        every `stride`-th position with zeros for the new channels, behind the others ("zero_pad")
        or half of them before ("zero_pad_around").
      dtype: of the computation.
      dilation: of the convolutions of width 3.
      convolution: one of `CONVOLUTIONS`.
    """

    features: int
    stride: int
    norm: Callable[..., nn.Module]
    shortcut: str
    dtype: jnp.dtype
    dilation: int = 1
    convolution: str = "full"

    def _strides(self, rank: int) -> tuple[int, ...]:
        time = self.stride if self.convolution in ("full", "factored") else 1
        return (time, self.stride, self.stride)[3 - rank :]

    def _branch(self, x: Array) -> Array:
        """The input of the first convolution."""
        return temporal_shift(x) if self.convolution == "shift" else x

    def _conv3(self, x: Array, in_channels: int, name: str, *, strided: bool, time: int) -> Array:
        """A convolution of width 3, `time` along it in a block of "first"."""
        rank = x.ndim - 2
        strides = self._strides(rank) if strided else (1,) * rank
        if self.convolution == "factored":
            inner = factored_features(in_channels, self.features)
            window = (3, 3, 3)
            return FactoredConv(
                self.features, inner, window, strides, self.norm, self.dtype, name=name
            )(x)
        time = {"full": 3, "first": time}.get(self.convolution, 1)
        window = (time, 3, 3)[3 - rank :]
        return centred_conv(
            self.features, window, strides, self.dilation, dtype=self.dtype, name=name
        )(x)

    def _shortcut(self, x: Array, features: int) -> Array:
        """`x` in the shape of the block's output."""
        rank, new = x.ndim - 2, features - x.shape[-1]
        strides = self._strides(rank)
        if new == 0 and set(strides) == {1}:
            return x
        if self.shortcut == "projection":
            x = centred_conv(features, (1,) * rank, strides, dtype=self.dtype, name="proj")(x)
            return self.norm(name="norm_proj")(x)
        x = x[(slice(None), *(slice(None, None, stride) for stride in strides))]
        before = new // 2 if self.shortcut == "zero_pad_around" else 0
        return jnp.pad(x, ((0, 0),) * (rank + 1) + ((before, new - before),))


class BasicBlock(Block):
    """Two convolutions of width 3 and a shortcut, He et al. 2016, https://arxiv.org/abs/1512.03385."""

    expansion: ClassVar[int] = 1  # output channels ÷ features

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch *out_spatial features"]:
        """The block's output."""
        channels = x.shape[-1]
        y = self._conv3(self._branch(x), channels, "conv1", strided=True, time=3)
        y = jax.nn.relu(self.norm(name="norm1")(y))
        y = self._conv3(y, channels, "conv2", strided=False, time=1)
        y = self.norm(name="norm2")(y)
        return jax.nn.relu(self._shortcut(x, self.features) + y)


class Bottleneck(Block):
    """A convolution of width 3 between two of width 1, the last to four times the channels.

    He et al. 2016, figure 5, https://arxiv.org/abs/1512.03385. The stride is that of the wide
    convolution, as in PyTorch's networks.
    """

    expansion: ClassVar[int] = 4  # output channels ÷ features

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch *out_spatial out_channels"]:
        """The block's output."""
        rank, channels, features = x.ndim - 2, x.shape[-1], self.expansion * self.features
        window = (3 if self.convolution == "first" else 1, 1, 1)[3 - rank :]
        y = self._branch(x)
        y = centred_conv(self.features, window, dtype=self.dtype, name="conv1")(y)
        y = jax.nn.relu(self.norm(name="norm1")(y))
        y = self._conv3(y, channels, "conv2", strided=True, time=1)
        y = jax.nn.relu(self.norm(name="norm2")(y))
        y = centred_conv(features, (1,) * rank, dtype=self.dtype, name="conv3")(y)
        y = self.norm(name="norm3")(y)
        return jax.nn.relu(self._shortcut(x, features) + y)
