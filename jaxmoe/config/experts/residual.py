"""Residual networks, of images or of clips, each with its own fields."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from jaxmoe.config.experts.expert import NORM, REMAT, STAGES, NormalizingConfig, Refusal
from jaxmoe.options import option

RESTORATION = "a block behind the first stage that restores attacked features, as OUD-M has it"


@dataclasses.dataclass(frozen=True)
class ResNetConfig(NormalizingConfig):
    """A residual network, of images or, with kernels in time, of clips."""

    name: ClassVar[str] = "resnet"
    module: ClassVar[str] = "ResNet"

    depth: Literal[10, 18, 34, 50] = option(10, "layers; 10 has one block a stage")
    width: int = option(16, "channels of the first stage; 64 in the paper", least=1)
    stage_sizes: tuple[int, ...] | None = option(None, STAGES)
    stem: Literal["large", "video", "small"] = option(
        "small", "a window of 7 and a max pool; of 7, 3 in time, and none; or of 3 and none"
    )
    stem_strides: tuple[int, int, int] = option((1, 2, 2), "time, height, width; CIFAR's are 1")
    shortcut: Literal["projection", "zero_pad", "zero_pad_around"] = option(
        "projection", "option B, or option A with zeros behind the channels or around them"
    )
    norm: Literal["group", "frozen_batch"] = option("group", NORM)
    restoration: bool = option(False, RESTORATION)
    remat: bool = option(False, REMAT)


@dataclasses.dataclass(frozen=True)
class R2Plus1DConfig(ResNetConfig):
    """R(2+1)D, of clips: each convolution is one in space and one in time."""

    name: ClassVar[str] = "r2plus1d"
    given: ClassVar[Mapping[str, Any]] = {"convolution": "factored"}
    sees_images: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True)
class MC3Config(ResNetConfig):
    """MC3, of clips: convolutions span time in the stem and in the first stage alone."""

    name: ClassVar[str] = "mc3"
    given: ClassVar[Mapping[str, Any]] = {"convolution": "mixed"}
    sees_images: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True)
class TSMConfig(ResNetConfig):
    """TSM, of clips: a network of images whose blocks take channels from the frames beside."""

    name: ClassVar[str] = "tsm"
    given: ClassVar[Mapping[str, Any]] = {"convolution": "shift"}
    sees_images: ClassVar[bool] = False

    width: int = option(16, "channels of the first stage; 64 in the paper", least=8)

    def refusals(self, shape: tuple[int, ...]) -> Iterator[Refusal]:
        """Yields clips of one frame, which has none beside it."""
        yield from super().refusals(shape)
        if shape[0] < 2:
            yield "name", self.name, "another with data.frames = 1: it shifts channels in time"


@dataclasses.dataclass(frozen=True)
class SlowFastConfig(NormalizingConfig):
    """SlowFast, of clips: few frames in many channels beside all frames in few."""

    name: ClassVar[str] = "slowfast"
    module: ClassVar[str] = "SlowFast"
    sees_images: ClassVar[bool] = False

    depth: Literal[10, 18, 34, 50] = option(10, "layers; 10 has one block a stage")
    width: int = option(16, "channels of the slow pathway's first stage; 64 in the paper", least=1)
    stage_sizes: tuple[int, ...] | None = option(None, STAGES)
    frame_ratio: int = option(4, "frames of the fast pathway for each of the slow one", least=1)
    channel_ratio: int = option(4, "channels of the slow pathway for each of the fast one", least=1)
    lateral_window: Literal[3, 5, 7] = option(5, "frames that a convolution between them spans")
    stem: Literal["large", "video", "small"] = option(
        "small", "a window of 7 and a max pool; of 7 and none; or of 3 and none"
    )
    norm: Literal["group", "frozen_batch"] = option("group", NORM)
    restoration: bool = option(False, RESTORATION)
    remat: bool = option(False, REMAT)

    def refusals(self, shape: tuple[int, ...]) -> Iterator[Refusal]:
        """Yields ratios that do not share the channels, or skip more frames than there are."""
        yield from super().refusals(shape)
        if self.width % self.channel_ratio:
            yield "channel_ratio", self.channel_ratio, f"a divisor of expert.width = {self.width}"
        if self.frame_ratio > shape[0]:
            yield "frame_ratio", self.frame_ratio, f"at most data.frames = {shape[0]}"
