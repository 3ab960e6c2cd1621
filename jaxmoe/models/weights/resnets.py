"""Residual networks of images and clips, as torchvision, CIFAR's and Hara's code have them."""

import collections
import re
from typing import Any

import numpy as np

from jaxmoe.models.residual import BasicBlock, Bottleneck
from jaxmoe.models.resnet import BLOCKS as BLOCKS_OF_DEPTH
from jaxmoe.models.resnet import STAGE_SIZES, ResNet
from jaxmoe.models.weights.layout import COUNTERS, Layout, Tensors

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# https://docs.pytorch.org/vision/stable/models.html, of networks trained on Kinetics.
KINETICS = {"mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)}
# https://github.com/kenshohara/3D-ResNets-PyTorch: in 2018, pixels from 0 to 255 minus
# ActivityNet's mean; since 2020, from 0 to 1 with Kinetics' mean and deviation.
HARA_2018 = {"mean": (114.7748 / 255, 107.7354 / 255, 99.4750 / 255), "std": (1 / 255,) * 3}
HARA_2020 = {"mean": (0.4345, 0.4051, 0.3775), "std": (0.2768, 0.2713, 0.2737)}
# https://github.com/kuangliu/pytorch-cifar
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}

_BLOCK, _OURS = r"layer(\d+)\.(\d+)", "stage{0}_block{1:+1}"
BLOCKS = {
    rf"{_BLOCK}\.conv(\d)": f"{_OURS}/conv{{2}}",
    rf"{_BLOCK}\.bn(\d)": f"{_OURS}/norm{{2}}",
    rf"{_BLOCK}\.(?:downsample|shortcut)\.0": f"{_OURS}/proj",
    rf"{_BLOCK}\.(?:downsample|shortcut)\.1": f"{_OURS}/norm_proj",
}
_CLIP = (8, 32, 32, 3)
_RESNET = {"conv1": "stem", "bn1": "norm_stem", **BLOCKS, "fc": "head"}


def stages_of(tensors: Tensors, block: str, *, bottleneck: bool) -> dict[str, Any]:
    """Returns `depth` and, where it does not say all, `stage_sizes`.

    Args:
      tensors: of the network.
      block: pattern of what a block's names begin with, its stage and its number in parentheses.
      bottleneck: whether blocks have three convolutions.
    """
    matches = (re.search(block, name) for name in tensors)
    found = {(int(match[1]), int(match[2])) for match in matches if match}
    sizes = tuple(collections.Counter(stage for stage, _ in sorted(found)).values())
    for depth, own in STAGE_SIZES.items():
        if sizes == own and BLOCKS_OF_DEPTH[depth] is (Bottleneck if bottleneck else BasicBlock):
            return {"depth": depth}
    return {"depth": 50 if bottleneck else 18, "stage_sizes": sizes}


def blocks_of(tensors: Tensors) -> dict[str, Any]:
    """Returns what `stages_of` does, of blocks as torchvision names them."""
    bottleneck = any(re.search(rf"{_BLOCK}\.conv3\.", name) for name in tensors)
    return stages_of(tensors, rf"{_BLOCK}\.", bottleneck=bottleneck)


def _has_projections(tensors: Tensors) -> bool:
    return any(re.search(r"\.(downsample|shortcut)\.0\.", name) for name in tensors)


def _resnet(tensors: Tensors, first: str = "conv1", last: str = "fc", **fields: Any) -> ResNet:
    """Returns a network of the sizes of its tensors."""
    own = {
        "num_classes": len(tensors[f"{last}.weight"]),
        "width": len(tensors[f"{first}.weight"]),
        "norm": "frozen_batch",
        **blocks_of(tensors),
    }
    return ResNet(**own, **fields)


def has(tensors: Tensors, **ranks: int) -> bool:
    """Returns whether there are kernels of these modules, dots as "__", with so many axes."""
    names = {name.replace("__", ".") + ".weight": rank for name, rank in ranks.items()}
    return all(name in tensors and tensors[name].ndim == rank for name, rank in names.items())


def _hara(tensors: Tensors) -> ResNet:
    shortcut = "projection" if _has_projections(tensors) else "zero_pad"
    # PyTorch 0.3, which wrote the files of 2018, counted no batches.
    counted = any(np.any(value) for name, value in tensors.items() if name.endswith(COUNTERS))
    return _resnet(tensors, shortcut=shortcut, **(HARA_2020 if counted else HARA_2018))


def _torchvision_video(tensors: Tensors) -> ResNet:
    mixed = "layer2.0.conv1.0.weight" in tensors and (
        tensors["layer2.0.conv1.0.weight"].shape[2] == 1
    )
    convolution = "mixed" if mixed else "full"
    return _resnet(tensors, "stem.0", stem="video", convolution=convolution, **KINETICS)


def _cifar(tensors: Tensors) -> ResNet:
    own = _has_projections(tensors)
    return _resnet(
        tensors,
        last="linear",
        stem="small",
        stem_strides=(1, 1, 1),
        shortcut="projection" if own else "zero_pad_around",
        **(CIFAR if own else IMAGENET),
    )


TORCHVISION_RESNET = Layout(
    "torchvision_resnet",
    "torchvision ResNet",
    _RESNET,
    lambda tensors: _resnet(tensors, **IMAGENET),
    lambda tensors: has(tensors, conv1=4, layer1__0__conv1=4, fc=2),
    lambda _: (64, 64, 3),
)

CIFAR_RESNET = Layout(
    "cifar_resnet",
    "ResNet of CIFAR, as akamaster and kuangliu have it",
    {**_RESNET, "linear": "head"},
    _cifar,
    lambda tensors: has(tensors, conv1=4, layer1__0__conv1=4, linear=2),
    lambda _: (32, 32, 3),
)

HARA_RESNET = Layout(
    "hara_resnet",
    "3D ResNet of kenshohara",
    _RESNET,
    _hara,
    lambda tensors: has(tensors, conv1=5, layer1__0__conv1=5, fc=2),
    lambda _: _CLIP,
)

TORCHVISION_VIDEO = Layout(
    "torchvision_video",
    "torchvision r3d_18 or mc3_18",
    {
        **{name: ours for name, ours in BLOCKS.items() if ours.endswith("proj")},
        r"stem\.0": "stem",
        r"stem\.1": "norm_stem",
        rf"{_BLOCK}\.conv(\d)\.0": f"{_OURS}/conv{{2}}",
        rf"{_BLOCK}\.conv(\d)\.1": f"{_OURS}/norm{{2}}",
        "fc": "head",
    },
    _torchvision_video,
    lambda tensors: has(tensors, stem__0=5, layer1__0__conv1__0=5, fc=2),
    lambda _: _CLIP,
)

TORCHVISION_R2PLUS1D = Layout(
    "torchvision_r2plus1d",
    "torchvision r2plus1d_18",
    {
        **{name: ours for name, ours in BLOCKS.items() if ours.endswith("proj")},
        r"stem\.0": "stem/space",
        r"stem\.1": "stem/norm",
        r"stem\.3": "stem/time",
        r"stem\.4": "norm_stem",
        rf"{_BLOCK}\.conv(\d)\.0\.0": f"{_OURS}/conv{{2}}/space",
        rf"{_BLOCK}\.conv(\d)\.0\.1": f"{_OURS}/conv{{2}}/norm",
        rf"{_BLOCK}\.conv(\d)\.0\.3": f"{_OURS}/conv{{2}}/time",
        rf"{_BLOCK}\.conv(\d)\.1": f"{_OURS}/norm{{2}}",
        "fc": "head",
    },
    lambda tensors: _resnet(tensors, "stem.3", stem="video", convolution="factored", **KINETICS),
    lambda tensors: has(tensors, stem__0=5, layer1__0__conv1__0__0=5, fc=2),
    lambda _: _CLIP,
)

TSM = Layout(
    "tsm",
    "TSM ResNet of mit-han-lab, whose blocks all shift",
    {
        r"base_model\.conv1": "stem",
        r"base_model\.bn1": "norm_stem",
        **{rf"base_model\.{name}": ours for name, ours in BLOCKS.items() if "conv" not in name},
        rf"base_model\.{_BLOCK}\.conv1\.net": f"{_OURS}/conv1",
        rf"base_model\.{_BLOCK}\.conv([23])": f"{_OURS}/conv{{2}}",
        "new_fc": "head",
    },
    lambda tensors: _resnet(tensors, "base_model.conv1", "new_fc", convolution="shift", **IMAGENET),
    lambda tensors: has(tensors, base_model__conv1=4, new_fc=2),
    lambda _: _CLIP,
)
