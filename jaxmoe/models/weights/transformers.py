"""Vision transformers as torchvision has them."""

import math

import numpy as np

from jaxmoe.models.vit import VisionTransformer
from jaxmoe.models.weights.layout import Layout, Tensors
from jaxmoe.models.weights.resnets import IMAGENET, has

_LAYER = r"encoder\.layers\.encoder_layer_(\d+)"
_BLOCK = "block{0:+1}"
_HEAD_SIZES = {1280: 80}  # ViT-H/14's; all others have 64
_POSITIONS = "encoder.pos_embedding"


def _vit(tensors: Tensors) -> VisionTransformer:
    width, _, patch, _ = tensors["conv_proj.weight"].shape
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")}
    return VisionTransformer(
        len(tensors["heads.head.weight"]),
        patch=patch,
        width=width,
        depth=len(layers),
        heads=max(1, width // _HEAD_SIZES.get(width, 64)),
        **IMAGENET,
    )


def _image(tensors: Tensors) -> tuple[int, int, int]:
    """An image of as many patches as there are positions, but for the class token's."""
    side = math.isqrt(tensors[_POSITIONS].shape[1] - 1) * tensors["conv_proj.weight"].shape[-1]
    return side, side, 3


def _apart(tensors: Tensors) -> Tensors:
    """The tensors with queries, keys and values apart."""
    found = {}
    for name, tensor in tensors.items():
        before, joint, leaf = name.partition(".in_proj_")
        if not joint:
            found[name] = tensor
            continue
        parts = zip(("query", "key", "value"), np.split(tensor, 3), strict=True)
        found |= {f"{before}.{part}.{leaf}": value for part, value in parts}
    return found


TORCHVISION_VIT = Layout(
    "torchvision_vit",
    "torchvision vision transformer",
    {
        "conv_proj": "patches",
        rf"{_LAYER}\.ln_(\d)": f"{_BLOCK}/norm{{1}}",
        **{
            rf"{_LAYER}\.self_attention\.{part}": f"{_BLOCK}/attention/{part}"
            for part in ("query", "key", "value")
        },
        rf"{_LAYER}\.self_attention\.out_proj": f"{_BLOCK}/attention/out",
        # Files of before torchvision 0.13 have other names of the perceptron.
        rf"{_LAYER}\.mlp\.(?:0|linear_1)": f"{_BLOCK}/mlp1",
        rf"{_LAYER}\.mlp\.(?:3|linear_2)": f"{_BLOCK}/mlp2",
        r"encoder\.ln": "norm",
        r"heads\.head": "head",
    },
    _vit,
    lambda tensors: _POSITIONS in tensors and has(tensors, conv_proj=4, heads__head=2),
    _image,
    tensors={"class_token": "class_token", r"encoder\.pos_embedding": "positions"},
    prepare=_apart,
    one_size=True,
)
