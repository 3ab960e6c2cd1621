"""SlowFast networks for clips: few frames in many channels beside many frames in few.

Axes: B = batch, T = time, H W = height, width, C = channels, K = classes.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.fields import check_choice, check_positive, check_stage_sizes
from jaxmoe.models.norm import Normalize
from jaxmoe.models.pool import max_pool
from jaxmoe.models.precision import accumulation_dtype
from jaxmoe.models.residual import centred_conv
from jaxmoe.models.resnet import BLOCKS, NORMS, STAGE_SIZES, STEMS
from jaxmoe.models.restoration import RestorationBlock

_FAST_STEM_FRAMES = 5  # that the fast pathway's first convolution spans; the slow one's has 1
_SLOW_STAGES_IN_TIME = 2  # the last stages of the slow pathway see time, those before do not


class SlowFast(nn.Module):
    """SlowFast with residual blocks, clips in, logits out.

    Feichtenhofer et al. 2019, table 1, https://arxiv.org/abs/1812.03982. The fast pathway takes
    every frame, and the slow one every `frame_ratio`-th. Convolutions strided in time bring what
    the fast pathway found to the slow one, in front of each stage.

    Attributes:
      num_classes: K.
      depth: 10, 18, 34 or 50; sets the blocks per stage, which are bottlenecks of 50.
      width: channels of the slow pathway's first stage, doubled by every later one; 64 in the
        paper.
      stage_sizes: blocks per stage, in place of those of `depth`.
      frame_ratio: frames of the fast pathway for each of the slow one, the paper's α: 8 of its
        4 × 16 network and 4 of 8 × 8.
      channel_ratio: channels of the slow pathway for each of the fast one, the paper's 1 / β;
        `width` divides by it.
      lateral_window: frames that a convolution between the pathways spans, an odd number: 5 in the
        paper and 7 in the authors' 8 × 8 network.
      stem: of both pathways in space: "large", a window of 7 and a maximum over 3 with stride 2;
        "video", 7 and no pooling; or "small", 3 and no pooling, for small inputs.
      norm: "group", or "frozen_batch" for imported weights.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
      dtype: of the computation; params stay float32, logits are float32 or wider.
      remat: whether the backward pass keeps each block's input alone and computes the block anew.
      restoration: whether a `RestorationBlock` is behind each pathway's first stage.
    """

    num_classes: int
    depth: int = 50
    width: int = 64
    stage_sizes: Sequence[int] | None = None
    frame_ratio: int = 8
    channel_ratio: int = 8
    lateral_window: int = 5
    stem: str = "large"
    norm: str = "group"
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    restoration: bool = False

    def __post_init__(self) -> None:
        check_choice(self, "depth", STAGE_SIZES)
        check_choice(self, "stem", STEMS)
        check_choice(self, "norm", NORMS)
        check_positive(self, "num_classes", "width", "frame_ratio", "channel_ratio")
        check_stage_sizes(self)
        if self.width % self.channel_ratio:
            raise ValueError(
                f"width must divide by channel_ratio = {self.channel_ratio}, got {self.width}"
            )
        if self.lateral_window < 1 or self.lateral_window % 2 == 0:
            raise ValueError(f"lateral_window must be odd, got {self.lateral_window}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time height width channels"]
    ) -> Float[Array, "batch num_classes"]:
        """Logits in float32 of `x [B, T, H, W, C]`, pixels in [0, 1].

        Raises:
          ValueError: `x` has another rank.
        """
        if x.ndim != 5:
            raise ValueError(f"x must be [B, T, H, W, C], got shape {x.shape}")
        norm = functools.partial(NORMS[self.norm], dtype=self.dtype)
        x = Normalize(self.mean, self.std, self.dtype)(x)
        slow = self._stem("slow", x[:, :: self.frame_ratio], norm)
        fast = self._stem("fast", x, norm)
        sizes = self.stage_sizes or STAGE_SIZES[self.depth]
        for stage in range(len(sizes)):
            slow = jnp.concatenate([slow, self._lateral(fast, norm, stage)], axis=-1)
            in_time = stage >= len(sizes) - _SLOW_STAGES_IN_TIME
            slow = self._stage("slow", slow, norm, stage, "first" if in_time else "space")
            fast = self._stage("fast", fast, norm, stage, "first")
            self.sow("intermediates", f"stage{stage + 1}", (slow, fast))
        work = accumulation_dtype(self.dtype)
        means = [jnp.mean(y.astype(work), axis=(1, 2, 3)) for y in (slow, fast)]
        return nn.Dense(self.num_classes, dtype=work, name="head")(jnp.concatenate(means, axis=-1))

    def _width(self, pathway: str) -> int:
        return self.width if pathway == "slow" else self.width // self.channel_ratio

    def _stem(self, pathway: str, x: Array, norm: Callable[..., nn.Module]) -> Array:
        _, space, pooled = STEMS[self.stem]
        window = (1 if pathway == "slow" else _FAST_STEM_FRAMES, space, space)
        conv = centred_conv(
            self._width(pathway), window, (1, 2, 2), dtype=self.dtype, name=f"{pathway}_stem"
        )
        x = jax.nn.relu(norm(name=f"{pathway}_norm_stem")(conv(x)))
        return max_pool(x, (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))) if pooled else x

    def _lateral(self, fast: Array, norm: Callable[..., nn.Module], stage: int) -> Array:
        """Returns the features that the slow pathway takes from the fast one before a stage."""
        window, strides = (self.lateral_window, 1, 1), (self.frame_ratio, 1, 1)
        name = f"lateral{stage + 1}"
        conv = centred_conv(2 * fast.shape[-1], window, strides, dtype=self.dtype, name=name)
        return jax.nn.relu(norm(name=f"norm_{name}")(conv(fast)))

    def _stage(
        self, pathway: str, x: Array, norm: Callable[..., nn.Module], stage: int, convolution: str
    ) -> Array:
        block_of = nn.remat(BLOCKS[self.depth]) if self.remat else BLOCKS[self.depth]
        for block in range((self.stage_sizes or STAGE_SIZES[self.depth])[stage]):
            x = block_of(
                self._width(pathway) * 2**stage,
                2 if stage > 0 and block == 0 else 1,
                norm,
                "projection",
                self.dtype,
                convolution=convolution,
                name=f"{pathway}_stage{stage + 1}_block{block + 1}",
            )(x)
        if self.restoration and stage == 0:
            x = RestorationBlock(norm, self.dtype, name=f"{pathway}_restoration")(x)
        return x
