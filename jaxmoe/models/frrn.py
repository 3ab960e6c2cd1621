"""Full-resolution residual networks for segmentation.

A residual stream keeps the image's resolution; a pooling stream shrinks and grows again. Units read
both and add to the first.

Axes: B = batch, H W = height, width, C = channels, K = classes, F = channels of the features.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.conv import Conv
from jaxmoe.models.fields import check_choice, check_positive
from jaxmoe.models.norm import Normalize
from jaxmoe.models.pool import max_pool, resize
from jaxmoe.models.precision import accumulation_dtype
from jaxmoe.models.resnet import NORMS

# (units, channels as a multiple of the first's, halvings): table 1 of the paper, which has 48.
ENCODERS = {
    "A": ((3, 2, 1), (4, 4, 2), (2, 8, 3), (2, 8, 4)),
    "B": ((3, 2, 1), (4, 4, 2), (2, 8, 3), (2, 8, 4), (2, 8, 5)),
}
DECODERS = {
    "A": ((2, 4, 3), (2, 4, 2), (2, 2, 1)),
    "B": ((2, 4, 4), (2, 4, 3), (2, 4, 2), (2, 2, 1)),
}


class ResidualUnit(nn.Module):
    """Two convolutions of width 3 beside a shortcut, at full resolution.

    Attributes:
      norm: builds a normalisation layer.
      dtype: of the computation.
    """

    norm: Callable[..., nn.Module]
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """The unit's output."""
        channels = x.shape[-1]
        y = Conv(channels, (3, 3), dtype=self.dtype, name="conv1")(x)
        y = jax.nn.relu(self.norm(name="norm1")(y))
        y = Conv(channels, (3, 3), dtype=self.dtype, name="conv2")(y)
        return x + self.norm(name="norm2")(y)


class FullResolutionResidualUnit(nn.Module):
    """Reads both streams, replaces the pooling one and adds to the residual one.

    Attributes:
      features: channels of the pooling stream behind it.
      scale: how much smaller the pooling stream is.
      norm: builds a normalisation layer.
      dtype: of the computation.
    """

    features: int
    scale: int
    norm: Callable[..., nn.Module]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, pooling: Array, residual: Array) -> tuple[Array, Array]:
        """Both streams behind the unit."""
        x = jnp.concatenate([pooling, shrink(residual, self.scale)], axis=-1)
        for i in (1, 2):
            x = Conv(self.features, (3, 3), dtype=self.dtype, name=f"conv{i}")(x)
            x = jax.nn.relu(self.norm(name=f"norm{i}")(x))
        added = Conv(
            residual.shape[-1], (1, 1), use_bias=True, dtype=self.dtype, name="to_residual"
        )(x)
        return x, residual + resize(added, residual.shape[1:3])


class FRRN(nn.Module):
    """FRRN A or B, images in, a logit for each pixel and class out.

    Pohlen et al. 2017, table 1, https://arxiv.org/abs/1611.08323.

    Attributes:
      num_classes: K.
      variant: "A", down to a sixteenth of the resolution, or "B", to a thirty-second.
      width: channels of the first layer; 48 in the paper.
      residual_width: channels of the residual stream; 32 in the paper.
      norm: "group", or "frozen_batch" for imported weights.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
      dtype: of the computation; params stay float32, logits are float32 or wider.
      remat: whether the backward pass keeps each unit's inputs alone and computes it anew.
    """

    num_classes: int
    variant: str = "A"
    width: int = 48
    residual_width: int = 32
    norm: str = "group"
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice(self, "variant", ENCODERS)
        check_choice(self, "norm", NORMS)
        check_positive(self, "num_classes", "width", "residual_width")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, with_features: bool = False
    ) -> Float[Array, "batch height width num_classes"] | tuple[Array, Array]:
        """Logits in float32 of `x [B, H, W, C]`, pixels in [0, 1].

        Args:
          x: the images.
          with_features: also return the pooling stream at its smallest, `[B, ⌈H/16⌉, ⌈W/16⌉, F]` of
            variant A, which a gate over several such networks reads.

        Raises:
          ValueError: `x` has another rank.
        """
        if x.ndim != 4:
            raise ValueError(f"x must be [B, H, W, C], got shape {x.shape}")
        norm = functools.partial(NORMS[self.norm], dtype=self.dtype)
        unit, full_unit = ResidualUnit, FullResolutionResidualUnit
        if self.remat:
            unit, full_unit = nn.remat(unit), nn.remat(full_unit)
        x = Normalize(self.mean, self.std, self.dtype)(x)
        x = Conv(self.width, (5, 5), dtype=self.dtype, name="stem")(x)
        x = jax.nn.relu(norm(name="norm_stem")(x))
        for i in (1, 2, 3):
            x = unit(norm, self.dtype, name=f"first_{i}")(x)
        residual = Conv(self.residual_width, (1, 1), use_bias=True, dtype=self.dtype, name="split")(
            x
        )
        pooling = x

        def group(name, pooling, residual, units, multiple, halvings):
            scale = 2**halvings
            sizes = shrunk_sizes(residual.shape[1:3], scale)
            if sizes[0] < pooling.shape[1]:
                pooling = shrink(pooling, 2)
            pooling = resize(pooling, sizes)
            for i in range(units):
                pooling, residual = full_unit(
                    self.width * multiple, scale, norm, self.dtype, name=f"{name}_{i + 1}"
                )(pooling, residual)
            return pooling, residual

        for level, setting in enumerate(ENCODERS[self.variant], start=1):
            pooling, residual = group(f"encoder{level}", pooling, residual, *setting)
        features = pooling
        for level, setting in enumerate(DECODERS[self.variant], start=1):
            pooling, residual = group(f"decoder{level}", pooling, residual, *setting)
        x = jnp.concatenate([resize(pooling, residual.shape[1:3]), residual], axis=-1)
        x = Conv(self.width, (1, 1), use_bias=True, dtype=self.dtype, name="join")(x)
        for i in (1, 2, 3):
            x = unit(norm, self.dtype, name=f"last_{i}")(x)
        x = x.astype(accumulation_dtype(x.dtype))
        logits = nn.Dense(self.num_classes, dtype=x.dtype, name="head")(x)
        return (logits, features) if with_features else logits


def shrunk_sizes(sizes: Sequence[int], scale: int) -> tuple[int, ...]:
    """Divides sizes by `scale`, rounded up."""
    return tuple(-(-size // scale) for size in sizes)


def shrink(
    x: Float[Array, "batch height width channels"], scale: int
) -> Float[Array, "batch height2 width2 channels"]:
    """The maximum over squares of `scale`; the last ones may be cut off by the border."""
    pads = [
        (0, size * scale - old)
        for old, size in zip(x.shape[1:3], shrunk_sizes(x.shape[1:3], scale), strict=True)
    ]
    return max_pool(x, (scale, scale), (scale, scale), pads)
