"""SlowFast networks, with the names of their authors' repository and of PyTorchVideo."""

import re
from collections.abc import Callable

from jaxmoe.models.slowfast import SlowFast
from jaxmoe.models.weights.layout import Layout, Tensors
from jaxmoe.models.weights.resnets import has, stages_of

_PATHWAYS = ("slow", "fast")  # 0 and 1
# The authors' two networks: how many frames the slow pathway gets is in no tensor, but theirs
# differ in the window of the convolutions between the pathways too.
_FRAME_RATIOS = {5: 8, 7: 4}
# https://github.com/facebookresearch/SlowFast: one number for all channels.
_PIXELS = {"mean": (0.45,), "std": (0.225,)}


def _make(stem: str, lateral: str, blocks: str, head: str) -> Callable[[Tensors], SlowFast]:
    def make(tensors: Tensors) -> SlowFast:
        width, narrow = (len(tensors[stem.format(number)]) for number in (0, 1))
        window = tensors[lateral].shape[2]
        bottleneck = any(re.search(r"branch2\.(conv_)?c\.", name) for name in tensors)
        return SlowFast(
            len(tensors[head]),
            **stages_of(tensors, blocks, bottleneck=bottleneck),
            width=width,
            channel_ratio=width // narrow,
            lateral_window=window,
            frame_ratio=_FRAME_RATIOS.get(window, 8),
            norm="frozen_batch",
            **_PIXELS,
        )

    return make


def _authors() -> dict[str, str]:
    found = {
        r"s(\d)_fuse\.conv_f2s": "lateral{0}",
        r"s(\d)_fuse\.bn": "norm_lateral{0}",
        r"head\.projection": "head",
    }
    for number, pathway in enumerate(_PATHWAYS):
        block = rf"s(\d)\.pathway{number}_res(\d+)"
        ours = f"{pathway}_stage{{0:-1}}_block{{1:+1}}"
        found |= {
            rf"s1\.pathway{number}_stem\.conv": f"{pathway}_stem",
            rf"s1\.pathway{number}_stem\.bn": f"{pathway}_norm_stem",
            rf"{block}\.branch1": f"{ours}/proj",
            rf"{block}\.branch1_bn": f"{ours}/norm_proj",
        }
        for place, letter in enumerate("abc", start=1):
            found[rf"{block}\.branch2\.{letter}"] = f"{ours}/conv{place}"
            found[rf"{block}\.branch2\.{letter}_bn"] = f"{ours}/norm{place}"
    return found


def _pytorchvideo() -> dict[str, str]:
    found = {
        r"blocks\.(\d)\.multipathway_fusion\.conv_fast_to_slow": "lateral{0:+1}",
        r"blocks\.(\d)\.multipathway_fusion\.norm": "norm_lateral{0:+1}",
        r"blocks\.6\.proj": "head",
    }
    for number, pathway in enumerate(_PATHWAYS):
        block = rf"blocks\.(\d)\.multipathway_blocks\.{number}\.res_blocks\.(\d+)"
        ours = f"{pathway}_stage{{0}}_block{{1:+1}}"
        found |= {
            rf"blocks\.0\.multipathway_blocks\.{number}\.conv": f"{pathway}_stem",
            rf"blocks\.0\.multipathway_blocks\.{number}\.norm": f"{pathway}_norm_stem",
            rf"{block}\.branch1_conv": f"{ours}/proj",
            rf"{block}\.branch1_norm": f"{ours}/norm_proj",
        }
        for place, letter in enumerate("abc", start=1):
            found[rf"{block}\.branch2\.conv_{letter}"] = f"{ours}/conv{place}"
            found[rf"{block}\.branch2\.norm_{letter}"] = f"{ours}/norm{place}"
    return found


SLOWFAST = Layout(
    "slowfast",
    "SlowFast of its authors",
    _authors(),
    _make(
        "s1.pathway{}_stem.conv.weight",
        "s1_fuse.conv_f2s.weight",
        r"s(\d)\.pathway0_res(\d+)\.",
        "head.projection.weight",
    ),
    lambda tensors: has(tensors, s1__pathway0_stem__conv=5, s1_fuse__conv_f2s=5),
    lambda _: (8, 32, 32, 3),
)

PYTORCHVIDEO_SLOWFAST = Layout(
    "pytorchvideo_slowfast",
    "PyTorchVideo SlowFast",
    _pytorchvideo(),
    _make(
        "blocks.0.multipathway_blocks.{}.conv.weight",
        "blocks.0.multipathway_fusion.conv_fast_to_slow.weight",
        r"blocks\.(\d)\.multipathway_blocks\.0\.res_blocks\.(\d+)\.",
        "blocks.6.proj.weight",
    ),
    lambda tensors: has(
        tensors,
        blocks__0__multipathway_blocks__0__conv=5,
        blocks__0__multipathway_fusion__conv_fast_to_slow=5,
    ),
    lambda _: (8, 32, 32, 3),
)
