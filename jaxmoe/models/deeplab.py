"""DeepLabv3+: segmentation with atrous convolutions over a ResNet.

Axes: B = batch, H W = height, width, C = channels, K = classes, F = channels of the features.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.conv import Conv
from jaxmoe.models.fields import check_choice, check_positive, check_stage_sizes
from jaxmoe.models.norm import Normalize
from jaxmoe.models.pool import max_pool, resize
from jaxmoe.models.precision import accumulation_dtype
from jaxmoe.models.resnet import BLOCKS, NORMS, STAGE_SIZES

# Stride and dilation: the last stage widens its view by dilation and keeps the resolution.
_STAGES = ((1, 1), (2, 1), (2, 1), (1, 2))


class DeepLabV3Plus(nn.Module):
    """DeepLabv3+ with a ResNet, images in, a logit for each pixel and class out.

    Chen et al. 2018, figure 2, https://arxiv.org/abs/1802.02611, output stride 16.

    Attributes:
      num_classes: K.
      depth: of the ResNet, 10, 18, 34 or 50.
      width: channels of its first stage; 64 in the paper.
      stage_sizes: blocks of its stages, at most four, in place of those of `depth`.
      features: F, channels of the pyramid and of the decoder; 256 in the paper.
      low_level: channels that the decoder takes of the first stage; 48 in the paper.
      rates: dilations of the pyramid; 6, 12 and 18 in the paper, less for small images.
      norm: "group", or "frozen_batch" for imported weights.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
      dtype: of the computation; params stay float32, logits are float32 or wider.
      remat: whether the backward pass keeps each residual block's input alone and computes it anew.
    """

    num_classes: int
    depth: int = 18
    width: int = 64
    stage_sizes: Sequence[int] | None = None
    features: int = 256
    low_level: int = 48
    rates: Sequence[int] = (6, 12, 18)
    norm: str = "group"
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice(self, "depth", STAGE_SIZES)
        check_choice(self, "norm", NORMS)
        check_positive(self, "num_classes", "width", "features", "low_level")
        check_stage_sizes(self, most=len(_STAGES))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, with_features: bool = False
    ) -> Float[Array, "batch height width num_classes"] | tuple[Array, Array]:
        """Logits in float32 of `x [B, H, W, C]`, pixels in [0, 1].

        Args:
          x: the images.
          with_features: also return the pyramid's output `[B, ⌈H/16⌉, ⌈W/16⌉, F]`, which a gate
            over several such networks reads.

        Raises:
          ValueError: `x` has another rank.
        """
        if x.ndim != 4:
            raise ValueError(f"x must be [B, H, W, C], got shape {x.shape}")
        sizes = x.shape[1:3]
        norm = functools.partial(NORMS[self.norm], dtype=self.dtype)

        def layer(name, y, features, size=1, dilation=1):
            pads = ((dilation * (size // 2),) * 2,) * 2
            y = Conv(
                features, (size, size), 1, pads, dilation, dtype=self.dtype, name=f"{name}_conv"
            )(y)
            return jax.nn.relu(norm(name=f"{name}_norm")(y))

        x = Normalize(self.mean, self.std, self.dtype)(x)
        x = Conv(self.width, (7, 7), 2, ((3, 3),) * 2, dtype=self.dtype, name="stem")(x)
        x = jax.nn.relu(norm(name="norm_stem")(x))
        x = max_pool(x, (3, 3), (2, 2), ((1, 1),) * 2)
        low = x
        block_of = BLOCKS[self.depth]
        block_of = nn.remat(block_of) if self.remat else block_of
        for stage, blocks in enumerate(self.stage_sizes or STAGE_SIZES[self.depth]):
            stride, dilation = _STAGES[stage]
            for block in range(blocks):
                x = block_of(
                    self.width * 2**stage,
                    stride if block == 0 else 1,
                    norm,
                    "projection",
                    self.dtype,
                    dilation,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x)
            low = x if stage == 0 else low
        branches = [layer("pyramid_0", x, self.features)]
        for i, rate in enumerate(self.rates, start=1):
            branches.append(layer(f"pyramid_{i}", x, self.features, 3, rate))
        pooled = layer("pyramid_image", jnp.mean(x, axis=(1, 2), keepdims=True), self.features)
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        features = layer("pyramid", jnp.concatenate(branches, axis=-1), self.features)
        low = layer("low_level", low, self.low_level)
        x = jnp.concatenate([resize(features, low.shape[1:3]), low], axis=-1)
        for i in (1, 2):
            x = layer(f"decoder_{i}", x, self.features, 3)
        x = x.astype(accumulation_dtype(x.dtype))
        logits = resize(nn.Dense(self.num_classes, dtype=x.dtype, name="head")(x), sizes)
        return (logits, features) if with_features else logits
