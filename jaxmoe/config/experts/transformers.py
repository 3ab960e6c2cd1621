"""Transformers, each with its own fields."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from jaxmoe.config.experts.expert import REMAT, NormalizingConfig, Refusal
from jaxmoe.options import option


@dataclasses.dataclass(frozen=True)
class ViTConfig(NormalizingConfig):
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
        yield from super().refusals(shape)
        for side in shape[-3:-1]:
            if side % self.patch:
                yield "patch", self.patch, f"a divisor of data.height = {side}"
        if self.width % self.heads:
            yield "heads", self.heads, f"a divisor of expert.width = {self.width}"


@dataclasses.dataclass(frozen=True)
class ViViTConfig(ViTConfig):
    """A vision transformer, of clips: its tokens are patches of several frames."""

    name: ClassVar[str] = "vivit"
    sees_clips: ClassVar[bool] = True
    sees_images: ClassVar[bool] = False

    tubelet: int = option(2, "frames of a patch", least=1)

    def refusals(self, shape: tuple[int, ...]) -> Iterator[Refusal]:
        """Yields tubelets that do not tile the clip, and what does not fit of any transformer."""
        if shape[0] % self.tubelet:
            yield "tubelet", self.tubelet, f"a divisor of data.frames = {shape[0]}"
        yield from super().refusals(shape)
