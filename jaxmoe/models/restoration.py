"""A block that restores features that an attack has changed (OUDefend).

Axes: B = batch, *S = spatial ([T, H, W] or [H, W]), C = channels.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.conv import Conv
from jaxmoe.models.pool import max_pool, resize


class RestorationBlock(nn.Module):
    """Half of an over-complete branch plus half of an under-complete one.

    The over-complete branch works on twice the height and width, where a filter sees fine detail;
    the under-complete one on half of them, where it sees what is around. Time stays as it is. Each
    has a convolution before and one behind the change of resolution. Lo et al. 2020, OUDefend,
    https://arxiv.org/abs/2012.04262.

    Attributes:
      norm: builds a normalisation layer.
      dtype: of the computation.
    """

    norm: Callable[..., nn.Module]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Returns restored features of the same shape.

        Raises:
          ValueError: H or W is 1: there is no half of it.
        """
        rank, sizes = x.ndim - 2, x.shape[1:-1]
        if min(sizes[-2:]) < 2:
            raise ValueError(f"restoration needs 2 × 2 features or more, got {sizes[-2:]}")
        pool = functools.partial(
            max_pool,
            window=(1,) * (rank - 2) + (2, 2),
            strides=(1,) * (rank - 2) + (2, 2),
            padding=((0, 0),) * rank,
        )

        def layer(name: str, y: Array) -> Array:
            window, pads = (3,) * rank, ((1, 1),) * rank
            conv = Conv(x.shape[-1], window, padding=pads, dtype=self.dtype, name=f"{name}_conv")
            return jax.nn.relu(self.norm(name=f"{name}_norm")(conv(y)))

        fine = (*sizes[:-2], 2 * sizes[-2], 2 * sizes[-1])
        over = pool(layer("over2", resize(layer("over1", x), fine)))
        under = resize(layer("under2", pool(layer("under1", x))), sizes)
        return (over + under) / 2
