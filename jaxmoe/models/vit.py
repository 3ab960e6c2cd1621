"""Vision transformers for images and, by patches of several frames, for clips.

Axes: B = batch, T = time, H W = height, width, C = channels, K = classes, N = tokens, D = their
width.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.conv import Conv
from jaxmoe.models.fields import check_positive
from jaxmoe.models.norm import Normalize
from jaxmoe.models.precision import accumulation_dtype


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each after a layer norm and beside a shortcut.

    Attributes:
      heads: of the attention; D divides by it.
      hidden: units of the perceptron.
      dtype: of the computation.
    """

    heads: int
    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """The block's output."""
        y = nn.LayerNorm(dtype=self.dtype, name="norm1")(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, name="attention")(y)
        y = nn.LayerNorm(dtype=self.dtype, name="norm2")(x)
        y = jax.nn.gelu(nn.Dense(self.hidden, dtype=self.dtype, name="mlp1")(y), approximate=False)
        return x + nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp2")(y)


class VisionTransformer(nn.Module):
    """ViT, images or clips in, logits out, read from a class token; ViT-S/16 by default.

    Dosovitskiy et al. 2021, section 3.1, https://arxiv.org/abs/2010.11929; the small one is that
    of Touvron et al. 2021, table 1, https://arxiv.org/abs/2012.12877. Of clips it is ViViT's
    model 1, Arnab et al. 2021, sections 3.2 and 3.3, https://arxiv.org/abs/2103.15691: tokens are
    tubelets, patches of several frames, and attention is among all of them at once.

    Attributes:
      num_classes: K.
      patch: height and width of a patch in pixels; H and W divide by it. CIFAR's 32 × 32 pixels
        are four patches of 16: 4 suits them better.
      width: D.
      depth: blocks.
      heads: of the attention; D divides by it.
      mean: per channel, subtracted from the pixels.
      std: per channel, divides the pixels.
      dtype: of the computation; params stay float32, logits are float32 or wider.
      remat: whether the backward pass keeps each block's input alone and computes it anew.
      tubelet: frames of a patch of clips, T divides by it; None for images.
    """

    num_classes: int
    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    tubelet: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "num_classes", "patch", "width", "depth", "heads")
        if self.tubelet is not None:
            check_positive(self, "tubelet")
        if self.width % self.heads:
            raise ValueError(f"width must divide by heads = {self.heads}, got {self.width}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch num_classes"]:
        """Logits in float32 of `x [B, H, W, C]`, or `[B, T, H, W, C]` with `tubelet`.

        Pixels are in [0, 1].

        Raises:
          ValueError: `x` has another rank, or T, H or W does not divide into patches.
        """
        size = (self.patch, self.patch)
        size = size if self.tubelet is None else (self.tubelet, *size)
        axes = ("T", "H", "W")[-len(size) :]
        whole = (n % s == 0 for n, s in zip(x.shape[1:-1], size, strict=False))
        if x.ndim != len(size) + 2 or not all(whole):
            multiples = ", ".join(f"{a} a multiple of {s}" for a, s in zip(axes, size, strict=True))
            raise ValueError(
                f"x must be [B, {', '.join(axes)}, C], {multiples}, got shape {x.shape}"
            )
        x = Normalize(self.mean, self.std, self.dtype)(x)
        x = Conv(self.width, size, size, "VALID", use_bias=True, dtype=self.dtype, name="patches")(
            x
        )
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param("class_token", nn.initializers.zeros_init(), (1, 1, self.width))
        token = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, self.width))
        x = jnp.concatenate([token, x], axis=1)
        small = nn.initializers.normal(0.02)
        x = x + self.param("positions", small, (1, *x.shape[1:])).astype(self.dtype)
        block_of = nn.remat(TransformerBlock) if self.remat else TransformerBlock
        for block in range(self.depth):
            name = f"block{block + 1}"
            x = block_of(self.heads, 4 * self.width, self.dtype, name=name)(x)
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(x)[:, 0]
        x = x.astype(accumulation_dtype(x.dtype))
        return nn.Dense(self.num_classes, dtype=x.dtype, name="head")(x)
