"""The architectures that an expert may have, each with its own fields.

An architecture of one's own is a subclass of `ExpertConfig` in `EXPERTS`. Those here import their
modules when they are built, so that help needs no JAX.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxmoe.options import option
from jaxmoe.registry import Entry, Registry, field_names

if TYPE_CHECKING:
    import flax.linen as nn

REMAT = "whether gradients compute each block anew: less memory, more time"

Refusal = tuple[str, object, str]
"""A field, its value and what is accepted."""

EXPERTS = Registry(
    "expert",
    "EXPERTS",
    {
        "resnet": f"{__name__}:ResNetConfig",
        "vit": f"{__name__}:ViTConfig",
        "deeplab": f"{__name__}:DeepLabConfig",
        "frrn": f"{__name__}:FRRNConfig",
    },
)


@dataclasses.dataclass(frozen=True)
class ExpertConfig(Entry):
    """The architecture that every expert has.

    Class variables say what an architecture can do; checks compare them with what the data needs.

    Attributes:
      module: what it is called in `jaxmoe.models`, if it is there.
      sees_clips: it takes `[B, T, H, W, C]`.
      sees_images: it takes `[B, H, W, C]`.
      labels_pixels: it gives logits `[B, H, W, K]`; others give `[B, K]`.
      has_features: its module takes `with_features=True` and gives `(logits, features)`, which a
        gate reads.
    """

    registry: ClassVar[Registry] = EXPERTS
    module: ClassVar[str]
    sees_clips: ClassVar[bool] = True
    sees_images: ClassVar[bool] = True
    labels_pixels: ClassVar[bool] = False
    has_features: ClassVar[bool] = False

    dtype: Literal["float32", "bfloat16"] = option(
        "float32", "of the computation; bfloat16 rounds pixels to half a grey level"
    )

    def build(self, num_classes: int) -> "nn.Module":
        """Returns the Flax module `x -> logits` of one expert.

        Here it is `module` of `jaxmoe.models`, which takes the fields of this configuration.

        Raises:
          ValueError: an impossible architecture.
        """
        import jax.numpy as jnp

        from jaxmoe import models

        given = {name: getattr(self, name) for name in field_names(type(self))}
        given["dtype"] = jnp.dtype(self.dtype)
        return getattr(models, self.module)(num_classes, **given)

    def refusals(self, shape: tuple[int, ...]) -> Iterator[Refusal]:
        """Yields what does not fit an input `[T, H, W, C]` or `[H, W, C]`, or another field."""
        del shape
        yield from ()


@dataclasses.dataclass(frozen=True)
class ResNetConfig(ExpertConfig):
    """A residual network, of images or, with kernels in time, of clips."""

    name: ClassVar[str] = "resnet"
    module: ClassVar[str] = "ResNet"

    depth: Literal[10, 18, 34] = option(10, "layers; 10 has one block a stage")
    width: int = option(16, "channels of the first stage; 64 in the paper", least=1)
    stage_sizes: tuple[int, ...] | None = option(None, "blocks per stage, instead of the depth's")
    stem: Literal["large", "small"] = option(
        "small", "a window of 7 and a max pool, or of 3 and none"
    )
    stem_strides: tuple[int, int, int] = option((1, 2, 2), "time, height, width; CIFAR's are 1")
    norm: Literal["group", "frozen_batch"] = option("group", "frozen_batch is for imported weights")
    remat: bool = option(False, REMAT)


@dataclasses.dataclass(frozen=True)
class ViTConfig(ExpertConfig):
    """A vision transformer, of images."""

    name: ClassVar[str] = "vit"
    module: ClassVar[str] = "VisionTransformer"
    sees_clips: ClassVar[bool] = False

    depth: int = option(10, "blocks", least=1)
    width: int = option(16, "channels of a token", least=1)
    patch: int = option(4, "pixels of a patch's side", least=1)
    heads: int = option(4, "of the attention", least=1)
    remat: bool = option(False, REMAT)

    def refusals(self, shape: tuple[int, ...]) -> Iterator[Refusal]:
        """Yields patches that do not tile the image, and heads that do not share the width."""
        for side in shape[-3:-1]:
            if side % self.patch:
                yield "patch", self.patch, f"a divisor of data.height = {side}"
        if self.width % self.heads:
            yield "heads", self.heads, f"a divisor of expert.width = {self.width}"


@dataclasses.dataclass(frozen=True)
class DeepLabConfig(ExpertConfig):
    """DeepLabv3+ on a residual network: labels pixels."""

    name: ClassVar[str] = "deeplab"
    module: ClassVar[str] = "DeepLabV3Plus"
    sees_clips: ClassVar[bool] = False
    labels_pixels: ClassVar[bool] = True
    has_features: ClassVar[bool] = True

    depth: Literal[10, 18, 34] = option(10, "layers of the residual network")
    width: int = option(16, "channels of its first stage; 64 in the paper", least=1)
    stage_sizes: tuple[int, ...] | None = option(None, "blocks per stage, instead of the depth's")
    features: int = option(64, "channels of pyramid and decoder; 256 in the paper", least=1)
    low_level: int = option(16, "channels that the decoder takes early; 48 in the paper", least=1)
    rates: tuple[int, ...] = option((2, 4, 6), "dilations; 6, 12, 18 in the paper")
    norm: Literal["group", "frozen_batch"] = option("group", "frozen_batch is for imported weights")
    remat: bool = option(False, REMAT)


@dataclasses.dataclass(frozen=True)
class FRRNConfig(ExpertConfig):
    """A full-resolution residual network: labels pixels."""

    name: ClassVar[str] = "frrn"
    module: ClassVar[str] = "FRRN"
    sees_clips: ClassVar[bool] = False
    labels_pixels: ClassVar[bool] = True
    has_features: ClassVar[bool] = True

    variant: Literal["A", "B"] = option("A", "down to a 16th or a 32nd of the resolution")
    width: int = option(16, "channels of the pooled stream's first stage", least=1)
    residual_width: int = option(16, "channels at full resolution; 32 in the paper", least=1)
    norm: Literal["group", "frozen_batch"] = option("group", "frozen_batch is for imported weights")
    remat: bool = option(False, REMAT)
