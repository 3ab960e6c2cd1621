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

from jaxmoe.models.fields import check_choice, check_positive, check_stage_sizes
from jaxmoe.models.norm import FrozenBatchNorm, GroupNorm, Normalize
from jaxmoe.models.pool import max_pool
from jaxmoe.models.precision import accumulation_dtype
from jaxmoe.models.residual import (
    SHIFTED_SHARE,
    SHORTCUTS,
    BasicBlock,
    Bottleneck,
    FactoredConv,
    centred_conv,
)
from jaxmoe.models.restoration import RestorationBlock

STAGE_SIZES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
BLOCKS = {10: BasicBlock, 18: BasicBlock, 34: BasicBlock, 50: Bottleneck}
NORMS = {"group": GroupNorm, "frozen_batch": FrozenBatchNorm}
# Windows in time and in space; whether a maximum over 3 with stride 2 follows.
STEMS = {"large": (7, 7, True), "video": (3, 7, False), "small": (3, 3, False)}
# How the blocks of the first stage see time, and those of later ones.
CONVOLUTIONS = {
    "full": ("full", "full"),
    "factored": ("factored", "factored"),
    "mixed": ("full", "space"),
    "shift": ("shift", "shift"),
}


class ResNet(nn.Module):
    """ResNet, clips or images in, logits out.

    For images it is that of He et al. 2016, https://arxiv.org/abs/1512.03385; for clips one of:

    - "full": the 3D ResNet of Hara et al. 2018, table 1, https://arxiv.org/abs/1711.09577;
    - "factored" and "mixed": R(2+1)D and MC3 of Tran et al. 2018, https://arxiv.org/abs/1711.11248;
    - "shift": TSM, Lin et al. 2019, https://arxiv.org/abs/1811.08383, in each residual branch. The
      head is linear, so that its mean over frames is that of the frames' logits.

    Attributes:
      num_classes: K.
      depth: 10, 18, 34 or 50; sets the blocks per stage, which are bottlenecks of 50.
      width: channels of the first stage, doubled by every later one; 64 in the papers.
      stage_sizes: blocks per stage, in place of those of `depth`.
      stem: "large", a convolution of width 7 and a maximum over 3 with stride 2; "video", of 3 in
        time and 7 in space, and no pooling; or "small", of 3 and no pooling, for small inputs. It
        is factored too, or in space alone under "shift", where the maximum is as well.
      stem_strides: of the stem's convolution in time, height and width; images take the last two.
        CIFAR's networks have "small" with strides of 1.
      shortcut: "projection" (option B), or "zero_pad" or "zero_pad_around" (option A), which put
        zeros for new channels behind the others, or half of them before.
      norm: "group", or "frozen_batch" for imported weights.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
      dtype: of the computation; params stay float32, logits are float32 or wider.
      remat: whether the backward pass keeps each block's input alone and computes the block anew.
      convolution: "full", along every axis; "factored", in space, then in time; "mixed", along time
        in stem and first stage alone; or "shift", in space, of channels shifted in time.
      restoration: whether a `RestorationBlock` is behind the first stage.
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
    convolution: str = "full"
    restoration: bool = False

    def __post_init__(self) -> None:
        check_choice(self, "depth", STAGE_SIZES)
        check_choice(self, "stem", STEMS)
        check_choice(self, "shortcut", SHORTCUTS)
        check_choice(self, "norm", NORMS)
        check_choice(self, "convolution", CONVOLUTIONS)
        check_positive(self, "num_classes", "width")
        if self.convolution == "shift" and self.width < SHIFTED_SHARE:
            raise ValueError(
                f"width must be at least {SHIFTED_SHARE} to shift an eighth of it, got {self.width}"
            )
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
          ValueError: `x` is neither, or images where `convolution` is about time.
        """
        if x.ndim not in (4, 5):
            raise ValueError(f"x must be [B, T, H, W, C] or [B, H, W, C], got shape {x.shape}")
        if x.ndim == 4 and self.convolution != "full":
            raise ValueError(
                f"x must be [B, T, H, W, C] where convolution = {self.convolution!r}, "
                f"got shape {x.shape}"
            )
        norm = functools.partial(NORMS[self.norm], dtype=self.dtype)
        x = self._stem(Normalize(self.mean, self.std, self.dtype)(x), norm)
        block_of = BLOCKS[self.depth]
        block_of = nn.remat(block_of) if self.remat else block_of
        for stage, blocks in enumerate(self.stage_sizes or STAGE_SIZES[self.depth]):
            for block in range(blocks):
                x = block_of(
                    self.width * 2**stage,
                    2 if stage > 0 and block == 0 else 1,
                    norm,
                    self.shortcut,
                    self.dtype,
                    convolution=CONVOLUTIONS[self.convolution][min(stage, 1)],
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x)
            if self.restoration and stage == 0:
                x = RestorationBlock(norm, self.dtype, name="restoration")(x)
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = x.astype(accumulation_dtype(x.dtype))
        x = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
        return nn.Dense(self.num_classes, dtype=x.dtype, name="head")(x)

    def _stem(self, x: Array, norm: Callable[..., nn.Module]) -> Array:
        rank, in_space = x.ndim - 2, self.convolution == "shift"
        time, space, pooled = STEMS[self.stem]
        window = (1 if in_space else time, space, space)[3 - rank :]
        strides = tuple(self.stem_strides)[3 - rank :]
        if self.convolution == "factored":
            inner = max(1, round(self.width * 45 / 64))  # 45 of 64 in the authors' network
            fields = (self.width, inner, window, strides, norm, self.dtype)
            x = FactoredConv(*fields, name="stem")(x)
        else:
            x = centred_conv(self.width, window, strides, dtype=self.dtype, name="stem")(x)
        x = jax.nn.relu(norm(name="norm_stem")(x))
        if not pooled:
            return x
        window = (1 if in_space else 3, 3, 3)[3 - rank :]
        return max_pool(
            x, window, [(size + 1) // 2 for size in window], [(size // 2,) * 2 for size in window]
        )
