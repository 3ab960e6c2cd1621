"""Networks that label pixels, each with its own fields."""

import dataclasses
from typing import ClassVar, Literal

from jaxmoe.config.experts.expert import NORM, REMAT, STAGES, NormalizingConfig
from jaxmoe.options import option


@dataclasses.dataclass(frozen=True)
class DeepLabV3Config(NormalizingConfig):
    """DeepLabv3 on a residual network, at an eighth of the resolution: labels pixels."""

    name: ClassVar[str] = "deeplab_v3"
    module: ClassVar[str] = "DeepLabV3"
    sees_clips: ClassVar[bool] = False
    labels_pixels: ClassVar[bool] = True
    has_features: ClassVar[bool] = True

    depth: Literal[10, 18, 34, 50] = option(10, "layers of the residual network")
    width: int = option(16, "channels of its first stage; 64 in the paper", least=1)
    stage_sizes: tuple[int, ...] | None = option(None, STAGES)
    features: int = option(64, "channels of pyramid and decoder; 256 in the paper", least=1)
    rates: tuple[int, ...] = option((2, 4, 6), "dilations; 12, 24, 36 in the paper")
    norm: Literal["group", "frozen_batch"] = option("group", NORM)
    remat: bool = option(False, REMAT)


@dataclasses.dataclass(frozen=True)
class DeepLabConfig(DeepLabV3Config):
    """DeepLabv3+ on a residual network, with a decoder that takes early features: labels pixels."""

    name: ClassVar[str] = "deeplab"
    module: ClassVar[str] = "DeepLabV3Plus"

    low_level: int = option(16, "channels that the decoder takes early; 48 in the paper", least=1)
    rates: tuple[int, ...] = option((2, 4, 6), "dilations; 6, 12, 18 in the paper")


@dataclasses.dataclass(frozen=True)
class FRRNConfig(NormalizingConfig):
    """A full-resolution residual network: labels pixels."""

    name: ClassVar[str] = "frrn"
    module: ClassVar[str] = "FRRN"
    sees_clips: ClassVar[bool] = False
    labels_pixels: ClassVar[bool] = True
    has_features: ClassVar[bool] = True

    variant: Literal["A", "B"] = option("A", "down to a 16th or a 32nd of the resolution")
    width: int = option(16, "channels of the pooled stream's first stage", least=1)
    residual_width: int = option(16, "channels at full resolution; 32 in the paper", least=1)
    norm: Literal["group", "frozen_batch"] = option("group", NORM)
    remat: bool = option(False, REMAT)
