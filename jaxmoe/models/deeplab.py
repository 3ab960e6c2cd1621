"""DeepLab: segmentation with atrous convolutions over a ResNet.

Axes: B = batch, H W = height, width, C = channels, K = classes, F = channels of the features.
"""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.fields import check_choice, check_positive, check_stage_sizes
from jaxmoe.models.norm import Normalize
from jaxmoe.models.pool import max_pool, resize
from jaxmoe.models.precision import accumulation_dtype
from jaxmoe.models.residual import centred_conv
from jaxmoe.models.resnet import BLOCKS, NORMS, STAGE_SIZES


class DeepLab(nn.Module):
    """What all versions have: a ResNet, and a pyramid of atrous convolutions on its last stage.

    Attributes:
      num_classes: K.
      depth: of the ResNet, 10, 18, 34 or 50.
      width: channels of its first stage; 64 in the papers.
      stage_sizes: blocks of its stages, at most four, in place of those of `depth`.
      features: F, channels of the pyramid and of what follows; 256 in the papers.
      rates: dilations of the pyramid, less than the papers' for small images.
      norm: "group", or "frozen_batch" for imported weights.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
      dtype: of the computation; params stay float32, logits are float32 or wider.
      remat: whether the backward pass keeps each residual block's input alone and computes it anew.
    """

    # Each stage has its stride, and the dilations of its first block and of the others. The last
    # stages widen their view by dilation and keep the resolution.
    stages: ClassVar[Sequence[tuple[int, int, int]]]

    num_classes: int
    depth: int = 18
    width: int = 64
    stage_sizes: Sequence[int] | None = None
    features: int = 256
    rates: Sequence[int] = (6, 12, 18)
    norm: str = "group"
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice(self, "depth", STAGE_SIZES)
        check_choice(self, "norm", NORMS)
        check_positive(self, "num_classes", "width", "features")
        check_stage_sizes(self, most=len(self.stages))
        super().__post_init__()

    def _norm(self) -> Callable[..., nn.Module]:
        return functools.partial(NORMS[self.norm], dtype=self.dtype)

    def _layer(self, name: str, x: Array, features: int, size: int = 1, dilation: int = 1) -> Array:
        """A convolution, a norm and ReLU."""
        window = (size, size)
        conv = centred_conv(features, window, 1, dilation, dtype=self.dtype, name=f"{name}_conv")
        return jax.nn.relu(self._norm()(name=f"{name}_norm")(conv(x)))

    def _backbone(self, x: Array) -> tuple[Array, Array]:
        """The output of the ResNet's first stage and of its last."""
        if x.ndim != 4:
            raise ValueError(f"x must be [B, H, W, C], got shape {x.shape}")
        x = Normalize(self.mean, self.std, self.dtype)(x)
        x = centred_conv(self.width, (7, 7), 2, dtype=self.dtype, name="stem")(x)
        x = jax.nn.relu(self._norm()(name="norm_stem")(x))
        x = max_pool(x, (3, 3), (2, 2), ((1, 1),) * 2)
        low = x
        block_of = BLOCKS[self.depth]
        block_of = nn.remat(block_of) if self.remat else block_of
        for stage, blocks in enumerate(self.stage_sizes or STAGE_SIZES[self.depth]):
            stride, *dilations = self.stages[stage]
            for block in range(blocks):
                x = block_of(
                    self.width * 2**stage,
                    stride if block == 0 else 1,
                    self._norm(),
                    "projection",
                    self.dtype,
                    dilations[min(block, 1)],
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x)
            low = x if stage == 0 else low
        return low, x

    def _pyramid(self, x: Array) -> Array:
        """Views of several widths on `x [B, h, w, C]`, the whole image's among them."""
        branches = [self._layer("pyramid_0", x, self.features)]
        for i, rate in enumerate(self.rates, start=1):
            branches.append(self._layer(f"pyramid_{i}", x, self.features, 3, rate))
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        pooled = self._layer("pyramid_image", mean, self.features)
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        return self._layer("pyramid", jnp.concatenate(branches, axis=-1), self.features)

    def _logits(self, x: Array, sizes: Sequence[int]) -> Array:
        x = x.astype(accumulation_dtype(x.dtype))
        return resize(nn.Dense(self.num_classes, dtype=x.dtype, name="head")(x), sizes)


class DeepLabV3(DeepLab):
    """DeepLabv3 with a ResNet, images in, a logit for each pixel and class out.

    Chen et al. 2017, figure 5, https://arxiv.org/abs/1706.05587, output stride 8. It has the layout
    of PyTorch's `deeplabv3_resnet50`, without its auxiliary head and dropout. Its fields are those
    of `DeepLab`, with `depth` 50 and the paper's `rates` at this stride.
    """

    # The first block of a stage is dilated as the stage before.
    stages: ClassVar = ((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4))

    depth: int = 50
    rates: Sequence[int] = (12, 24, 36)

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, with_features: bool = False
    ) -> Float[Array, "batch height width num_classes"] | tuple[Array, Array]:
        """Logits in float32 of `x [B, H, W, C]`, pixels in [0, 1].

        Args:
          x: the images.
          with_features: also return the pyramid's output `[B, ⌈H/8⌉, ⌈W/8⌉, F]`, which a gate
            over several such networks reads.

        Raises:
          ValueError: `x` has another rank.
        """
        features = self._pyramid(self._backbone(x)[1])
        logits = self._logits(self._layer("decoder", features, self.features, 3), x.shape[1:3])
        return (logits, features) if with_features else logits


class DeepLabV3Plus(DeepLab):
    """DeepLabv3+ with a ResNet, images in, a logit for each pixel and class out.

    Chen et al. 2018, figure 2, https://arxiv.org/abs/1802.02611, output stride 16.

    Its fields are those of `DeepLab` and one more.

    Attributes:
      low_level: channels that the decoder takes of the first stage; 48 in the paper.
    """

    stages: ClassVar = ((1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 2, 2))

    low_level: int = 48

    def __post_init__(self) -> None:
        check_positive(self, "low_level")
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
        low, last = self._backbone(x)
        features = self._pyramid(last)
        low = self._layer("low_level", low, self.low_level)
        y = jnp.concatenate([resize(features, low.shape[1:3]), low], axis=-1)
        for i in (1, 2):
            y = self._layer(f"decoder_{i}", y, self.features, 3)
        logits = self._logits(y, x.shape[1:3])
        return (logits, features) if with_features else logits
