"""`Augmentation`: how training examples are changed at random, as steps that each do one thing.

A step maps `(clip, label, generator)` to `(clip, label)`. It draws once for a clip, and all frames
are changed alike: what moves in a clip is its own motion. A label map goes with its image.

T = frames, H = height, W = width
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from jaxmoe.data.loading.crops import Padding, RandomCrop, ResizedCrop, random_box

Clip = UInt8[np.ndarray, "T H W 3"]
Label = Int[np.ndarray, ""] | Int[np.ndarray, "H W"]
Step = Callable[[Clip, Label, np.random.Generator], tuple[Clip, Label]]

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as of Pillow's grey
_ERASED = 0.02, 1 / 3  # shares of a frame
_ERASED_SHAPES = 0.3, 1 / 0.3  # width to height


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training examples are changed at random; by itself, random frames and a random crop.

    Attributes:
      flip: mirror left and right with probability 1/2; not where left and right are classes.
      padding: black pixels, void in a label map, around a frame before it is cropped.
      crop_scale: least share of a frame's area that a crop takes, which is then resized; None
        crops what a model sees, and resizes nothing.
      color_jitter: brightness, contrast and saturation are multiplied by up to 1 ± this.
      erasing: probability that a box is filled with noise.
      speed_jitter: the step between frames of a window is multiplied by up to 1 ± this.

    Raises:
      ValueError: one line that names the field of a number out of range.
    """

    flip: bool = False
    padding: int = 0
    crop_scale: float | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0
    speed_jitter: float = 0.0

    def __post_init__(self):
        for name, least, most in (
            ("padding", 0, float("inf")),
            ("crop_scale", 0.01, 1),
            ("color_jitter", 0, 1),
            ("erasing", 0, 1),
            ("speed_jitter", 0, 0.9),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(
                    f"data.{name}: {value} is not accepted; expected from {least} to {most}"
                )

    def steps(self, size: tuple[int, int]) -> tuple[Step, ...]:
        """Returns the steps from whole frames to what a model sees, `size` = (H, W), in order."""
        scale = self.crop_scale
        steps: list[Step] = [Padding(self.padding)] if self.padding else []
        steps.append(RandomCrop(size) if scale is None else ResizedCrop(size, scale))
        steps += [Mirror()] if self.flip else []
        steps += [ColorJitter(self.color_jitter)] if self.color_jitter else []
        steps += [Erasing(self.erasing)] if self.erasing else []
        return tuple(steps)


@dataclasses.dataclass(frozen=True)
class Mirror:
    """Mirrors left and right with probability 1/2."""

    def __call__(self, clip: Clip, label: Label, rng: np.random.Generator) -> tuple[Clip, Label]:
        """Returns both as they are, or both mirrored."""
        if not rng.integers(0, 2):
            return clip, label
        return clip[:, :, ::-1], label[:, ::-1] if label.ndim else label


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast and saturation, in this order, by a factor each.

    The three are one affine map of a pixel's colour, rounded and clipped to 0–255 once. Contrast is
    about the mean grey of the whole clip. Labels stay.

    Attributes:
      strength: s; factors are uniform in [1 − s, 1 + s], at most 1.
    """

    strength: float

    def __call__(self, clip: Clip, label: Label, rng: np.random.Generator) -> tuple[Clip, Label]:
        """Returns the clip in other colours."""
        brightness, contrast, saturation = 1 + self.strength * rng.uniform(-1, 1, 3)
        tall = Image.fromarray(np.ascontiguousarray(clip).reshape(-1, *clip.shape[2:]))
        grey = np.asarray(tall.convert("L")).mean()
        mixed = saturation * np.eye(3) + (1 - saturation) * np.broadcast_to(_LUMA, (3, 3))
        added = np.full((3, 1), (1 - contrast) * brightness * grey)
        matrix = np.concatenate([brightness * contrast * mixed, added], axis=1)
        changed = tall.convert("RGB", tuple(matrix.ravel().tolist()))
        return np.asarray(changed).reshape(clip.shape), label


@dataclasses.dataclass(frozen=True)
class Erasing:
    """Fills a box with noise, the same in all frames; a label map is void there.

    Zhong et al., Random Erasing Data Augmentation, 2020 (https://arxiv.org/abs/1708.04896): the box
    has 2 % to a third of a frame's area, and is up to 3.3 times as wide as high, or as high as
    wide.

    Attributes:
      probability: of a box, in [0, 1].
    """

    probability: float

    def __call__(self, clip: Clip, label: Label, rng: np.random.Generator) -> tuple[Clip, Label]:
        """Returns both as they are, or both with a box erased."""
        if rng.random() >= self.probability:
            return clip, label
        top, left, height, width = random_box(clip.shape[1:3], _ERASED, _ERASED_SHAPES, rng)
        box = slice(top, top + height), slice(left, left + width)
        clip = clip.copy()
        clip[:, *box] = rng.integers(0, 256, (height, width, 3), np.uint8)
        if label.ndim:
            label = label.copy()
            label[box] = -1
        return clip, label
