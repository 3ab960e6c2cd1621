"""Routers: from clips or images to one logit per expert, at a few percent of an expert's cost.

Axes: B = batch, *S = spatial ([T, H, W] or [H, W]), C = channels, M = experts.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.conv import Conv
from jaxmoe.models.fields import check_positive
from jaxmoe.models.norm import GroupNorm, Normalize
from jaxmoe.models.pool import average_pool_to


class ConvRouter(nn.Module):
    """A small convolutional router: three convolutions, the first strided, then a global average.

    Attributes:
      num_experts: M.
      width: channels of the first convolution; the others have twice as many.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
      dtype: of the computation; params and logits are float32.
    """

    num_experts: int
    width: int = 16
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        check_positive(self, "num_experts", "width")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch num_experts"]:
        """Router logits in float32 of `x [B, T, H, W, C]` or `[B, H, W, C]`, pixels in [0, 1]."""
        rank = x.ndim - 2
        x = Normalize(self.mean, self.std, self.dtype)(x)
        # Time is sampled half as densely as the picture: clips are short.
        strides = (2, 4, 4)[3 - rank :]
        x = Conv(self.width, (3, 5, 5)[3 - rank :], strides, dtype=self.dtype, name="conv1")(x)
        x = jax.nn.relu(GroupNorm(groups=1, dtype=self.dtype, name="norm1")(x))
        for i in (2, 3):
            x = Conv(2 * self.width, (3,) * rank, 2, dtype=self.dtype, name=f"conv{i}")(x)
            x = jax.nn.relu(GroupNorm(groups=1, dtype=self.dtype, name=f"norm{i}")(x))
        x = jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim - 1)))
        return nn.Dense(self.num_experts, name="head")(x)


class LinearRouter(nn.Module):
    """A linear map of the pixels.

    Attributes:
      num_experts: M.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
    """

    num_experts: int
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)

    def __post_init__(self) -> None:
        check_positive(self, "num_experts")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch num_experts"]:
        """Router logits in float32 of `x [B, *S, C]`, pixels in [0, 1]."""
        x = Normalize(self.mean, self.std)(x)
        return nn.Dense(self.num_experts, name="head")(x.reshape(x.shape[0], -1))


class PooledRouter(nn.Module):
    """A perceptron on pixels averaged over a coarse grid; linear where `hidden` is 0.

    Attributes:
      num_experts: M.
      grid: cells per spatial axis; of three numbers, images take the last two.
      hidden: units of the hidden layer, 0 for none.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
    """

    num_experts: int
    grid: Sequence[int] = (2, 4, 4)
    hidden: int = 0
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)

    def __post_init__(self) -> None:
        check_positive(self, "num_experts")
        if self.hidden < 0 or any(cells < 1 for cells in self.grid):
            raise ValueError(
                f"hidden must be >= 0 and grid >= 1, got hidden={self.hidden}, grid={self.grid}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch num_experts"]:
        """Router logits in float32 of `x [B, *S, C]`, pixels in [0, 1]."""
        rank = x.ndim - 2
        x = Normalize(self.mean, self.std)(x)
        x = average_pool_to(x, tuple(self.grid)[-rank:]).reshape(x.shape[0], -1)
        if self.hidden:
            x = jax.nn.relu(nn.Dense(self.hidden, name="hidden_layer")(x))
        return nn.Dense(self.num_experts, name="head")(x)
