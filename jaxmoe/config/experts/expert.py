"""The kind of all architectures, and the registry of those that there are."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jaxmoe.options import option
from jaxmoe.registry import Entry, Registry, field_names

if TYPE_CHECKING:
    import flax.linen as nn

REMAT = "whether gradients compute each block anew: less memory, more time"
NORM = "frozen_batch is for imported weights"
STAGES = "blocks per stage, instead of the depth's"

Refusal = tuple[str, object, str]
"""A field, its value and what is accepted."""

_ROOM = __name__.rpartition(".")[0]
EXPERTS = Registry(
    "expert",
    "EXPERTS",
    {
        "resnet": f"{_ROOM}.residual:ResNetConfig",
        "r2plus1d": f"{_ROOM}.residual:R2Plus1DConfig",
        "mc3": f"{_ROOM}.residual:MC3Config",
        "tsm": f"{_ROOM}.residual:TSMConfig",
        "slowfast": f"{_ROOM}.residual:SlowFastConfig",
        "vit": f"{_ROOM}.transformers:ViTConfig",
        "vivit": f"{_ROOM}.transformers:ViViTConfig",
        "deeplab": f"{_ROOM}.segmentation:DeepLabConfig",
        "deeplab_v3": f"{_ROOM}.segmentation:DeepLabV3Config",
        "frrn": f"{_ROOM}.segmentation:FRRNConfig",
    },
)


@dataclasses.dataclass(frozen=True)
class ExpertConfig(Entry):
    """The architecture that every expert has.

    Class variables say what an architecture can do; checks compare them with what the data needs.

    Attributes:
      module: what it is called in `jaxmoe.models`, if it is there.
      given: fields of that module which make the architecture what it is.
      sees_clips: it takes `[B, T, H, W, C]`.
      sees_images: it takes `[B, H, W, C]`.
      labels_pixels: it gives logits `[B, H, W, K]`; others give `[B, K]`.
      has_features: its module takes `with_features=True` and gives `(logits, features)`, which a
        gate reads.
    """

    registry: ClassVar[Registry] = EXPERTS
    module: ClassVar[str]
    given: ClassVar[Mapping[str, Any]] = MappingProxyType({})
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

        fields = {name: getattr(self, name) for name in field_names(type(self))}
        fields["dtype"] = jnp.dtype(self.dtype)
        return getattr(models, self.module)(num_classes, **fields, **self.given)

    def refusals(self, shape: tuple[int, ...]) -> Iterator[Refusal]:
        """Yields what does not fit an input `[T, H, W, C]` or `[H, W, C]`, or another field."""
        del shape
        yield from ()


@dataclasses.dataclass(frozen=True)
class NormalizingConfig(ExpertConfig):
    """An architecture that normalises pixels before all else, as those of `jaxmoe.models` do."""

    mean: tuple[float, ...] = option(
        (0.5,), "of pixels in [0, 1], subtracted: one number, or one per channel"
    )
    std: tuple[float, ...] = option((0.5,), "as mean, divides what is left; above 0")

    def refusals(self, shape: tuple[int, ...]) -> Iterator[Refusal]:
        """Yields numbers that no channel has, and such as nothing can be divided by."""
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            values = getattr(self, name)
            if len(values) not in (1, shape[-1]):
                yield name, values, f"one number, or one for each of {shape[-1]} channels"
            if not all(least < value < math.inf for value in values):
                yield name, values, "finite numbers" + " above 0" * (name == "std")
