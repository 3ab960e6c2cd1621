"""Normalisations that keep every clip to itself: no statistic crosses the batch.

Axes: B = batch, *S = spatial, C = channels, G = groups of channels.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.precision import accumulation_dtype


class GroupNorm(nn.Module):
    """Group normalisation per sample, with a scale and a shift per channel.

    Wu & He 2018, https://arxiv.org/abs/1803.08494. Statistics are computed in float32.

    Attributes:
      groups: at most so many.
      group_size: channels that a group has at least, as far as C goes. Groups of one channel would
        leave a mean over space nothing but the bias to tell. G is the largest divisor of C that
        both allow.
      epsilon: added to the variance.
      dtype: of the result; params stay float32.
    """

    groups: int = 32
    group_size: int = 8
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        for name in ("groups", "group_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        super().__post_init__()

    def count_groups(self, channels: int) -> int:
        """G for so many channels."""
        most = max(1, min(self.groups, channels // self.group_size))
        return max(g for g in range(1, most + 1) if channels % g == 0)

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Normalises `x` over the spatial axes and the channels of each group."""
        channels = x.shape[-1]
        groups = self.count_groups(channels)
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        work = accumulation_dtype(x.dtype)
        batch = x.shape[0]
        y = x.astype(work).reshape(batch, -1, channels)
        count = y.shape[1] * (channels // groups)
        # Sums over positions first, over the group's channels after: reducing both at once, or a
        # view with an axis of groups, makes the gradient 4-15x slower on CPU.
        total = jnp.sum(jnp.sum(y, 1).reshape(batch, groups, -1), 2, keepdims=True)
        squares = jnp.sum(jnp.sum(jnp.square(y), 1).reshape(batch, groups, -1), 2, keepdims=True)
        mean = total / count
        variance = jnp.maximum(squares / count - jnp.square(mean), 0.0)
        scale = scale.astype(work).reshape(1, groups, -1) * jax.lax.rsqrt(variance + self.epsilon)
        bias = bias.astype(work).reshape(1, groups, -1) - mean * scale
        y = y * scale.reshape(batch, 1, channels) + bias.reshape(batch, 1, channels)
        return y.reshape(x.shape).astype(self.dtype)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with imported statistics that no call updates: an affine map.

    Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, in inference mode. `mean` and `var` live
    in the collection "batch_stats", `scale` and `bias` in "params".

    Attributes:
      epsilon: added to the variance.
      dtype: of the result.
    """

    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Applies the stored statistics to `x`."""
        shape = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32).value
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32).value
        scale = self.param("scale", nn.initializers.ones_init(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), shape)
        scale = scale * jax.lax.rsqrt(variance + self.epsilon)
        bias = bias - mean * scale
        axes = (1,) * (x.ndim - 1)
        work = accumulation_dtype(x.dtype)
        scale, bias = scale.astype(work).reshape(*axes, -1), bias.astype(work).reshape(*axes, -1)
        return (x.astype(work) * scale + bias).astype(self.dtype)


class Normalize(nn.Module):
    """Pixel normalisation within the model, so that attacks see pixels in [0, 1].

    Attributes:
      mean: one number per channel (or one for all), in units of pixels in [0, 1].
      std: as `mean`, positive.
      dtype: of the result.
    """

    mean: Sequence[float]
    std: Sequence[float]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """`(x - mean) / std` per channel.

        Raises:
          ValueError: pixels that are integers, a length that is neither 1 nor C, or std <= 0.
        """
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"pixels must be floating, in [0, 1], got {x.dtype}")
        channels = x.shape[-1]
        for name, value in (("mean", self.mean), ("std", self.std)):
            if len(value) not in (1, channels):
                raise ValueError(f"{name} must have 1 or {channels} numbers, got {value}")
        if any(s <= 0 for s in self.std):
            raise ValueError(f"std must be positive, got {self.std}")
        axes = (1,) * (x.ndim - 1)
        mean = jnp.asarray(self.mean, x.dtype).reshape(*axes, -1)
        std = jnp.asarray(self.std, x.dtype).reshape(*axes, -1)
        return ((x - mean) / std).astype(self.dtype)
