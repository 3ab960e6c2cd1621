"""Residual networks for clips and images: the same code with three or two spatial axes.

Axes: B = batch, *S = spatial ([T, H, W] or [H, W]), C = channels, K = classes.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.conv import Conv
from jaxmoe.models.fields import check_choice, check_positive, check_stage_sizes
from jaxmoe.models.norm import FrozenBatchNorm, GroupNorm, Normalize
from jaxmoe.models.pool import max_pool
from jaxmoe.models.precision import accumulation_dtype

STAGE_SIZES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
NORMS = {"group": GroupNorm, "frozen_batch": FrozenBatchNorm}
STEMS = ("large", "small")
SHORTCUTS = ("projection", "zero_pad")


class BasicBlock(nn.Module):
    """Two convolutions of width 3 and a shortcut, He et al. 2016, https://arxiv.org/abs/1512.03385.

    Attributes:
      features: output channels.
      stride: of the first convolution and of the shortcut, along every spatial axis.
      dilation: of both convolutions.
      norm: builds a normalisation layer.
      shortcut: "projection" (option B) or "zero_pad" (option A), where the shape changes.
      dtype: of the computation.
    """

    features: int
    stride: int
    norm: Callable[..., nn.Module]
    shortcut: str
    dtype: jnp.dtype
    dilation: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch *out_spatial features"]:
        """The block's output."""
        rank = x.ndim - 2
        conv = functools.partial(
            Conv,
            self.features,
            (3,) * rank,
            padding=((self.dilation, self.dilation),) * rank,
            dilation=self.dilation,
            dtype=self.dtype,
        )
        y = jax.nn.relu(self.norm(name="norm1")(conv(strides=self.stride, name="conv1")(x)))
        y = conv(name="conv2")(y)
        y = self.norm(name="norm2")(y)
        if self.stride != 1 or x.shape[-1] != self.features:
            if self.shortcut == "projection":
                x = Conv(
                    self.features, (1,) * rank, self.stride, "VALID", dtype=self.dtype, name="proj"
                )(x)
                x = self.norm(name="norm_proj")(x)
            else:
                x = x[(slice(None), *(slice(None, None, self.stride),) * rank)]
                x = jnp.pad(x, ((0, 0),) * (rank + 1) + ((0, self.features - x.shape[-1]),))
        return jax.nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet with basic blocks, clips or images in, logits out.

    Of images it is that of He et al. 2016, https://arxiv.org/abs/1512.03385; of clips the 3D ResNet
    of Hara et al. 2018, table 1, https://arxiv.org/abs/1711.09577.

    Attributes:
      num_classes: K.
      depth: 10, 18 or 34; sets the blocks per stage.
      width: channels of the first stage, doubled by every later one; 64 in the paper.
      stage_sizes: blocks per stage, in place of those of `depth`.
      stem: "large", a convolution of width 7 and a maximum over 3 with stride 2; or "small",
        a convolution of width 3 and no pooling, for small inputs.
      stem_strides: of the stem's convolution in time, height and width; images take the last two.
        CIFAR's networks have "small" with strides of 1.
      shortcut: "projection" (option B) or "zero_pad" (option A).
      norm: "group", or "frozen_batch" for imported weights.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
      dtype: of the computation; params stay float32, logits are float32 or wider.
      remat: whether the backward pass keeps each block's input alone and computes the block anew.
    """

    num_classes: int
    depth: int = 18
    width: int = 64
    stage_sizes: Sequence[int] | None = None
    stem: str = "large"
    stem_strides: Sequence[int] = (1, 2, 2)
    shortcut: str = "projection"
    norm: str = "group"
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice(self, "depth", STAGE_SIZES)
        check_choice(self, "stem", STEMS)
        check_choice(self, "shortcut", SHORTCUTS)
        check_choice(self, "norm", NORMS)
        check_positive(self, "num_classes", "width")
        check_stage_sizes(self)
        if len(self.stem_strides) != 3 or any(stride < 1 for stride in self.stem_strides):
            raise ValueError(f"stem_strides must be 3 integers >= 1, got {self.stem_strides}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch num_classes"]:
        """Logits in float32 of `x [B, T, H, W, C]` or `[B, H, W, C]`, pixels in [0, 1].

        Raises:
          ValueError: `x` is neither.
        """
        if x.ndim not in (4, 5):
            raise ValueError(f"x must be [B, T, H, W, C] or [B, H, W, C], got shape {x.shape}")
        rank = x.ndim - 2
        norm = functools.partial(NORMS[self.norm], dtype=self.dtype)
        x = Normalize(self.mean, self.std, self.dtype)(x)
        size = 7 if self.stem == "large" else 3
        pads = ((size // 2, size // 2),) * rank
        strides = tuple(self.stem_strides)[3 - rank :]
        x = Conv(self.width, (size,) * rank, strides, pads, dtype=self.dtype, name="stem")(x)
        x = jax.nn.relu(norm(name="norm_stem")(x))
        if self.stem == "large":
            x = max_pool(x, (3,) * rank, (2,) * rank, ((1, 1),) * rank)
        block_of = nn.remat(BasicBlock) if self.remat else BasicBlock
        for stage, blocks in enumerate(self.stage_sizes or STAGE_SIZES[self.depth]):
            for block in range(blocks):
                x = block_of(
                    self.width * 2**stage,
                    2 if stage > 0 and block == 0 else 1,
                    norm,
                    self.shortcut,
                    self.dtype,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x)
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = x.astype(accumulation_dtype(x.dtype))
        x = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
        return nn.Dense(self.num_classes, dtype=x.dtype, name="head")(x)
