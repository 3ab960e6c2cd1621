"""Models: the `conv` primitive, experts, routers, norms, weights of PyTorch.

Experts and routers are Flax Linen modules, because their `init` and `apply` are pure functions.
Clips are `[B, T, H, W, C]` floats in [0, 1], images `[B, H, W, C]`.
"""

from jaxmoe.models import weights
from jaxmoe.models.conv import Conv, conv
from jaxmoe.models.deeplab import DeepLabV3, DeepLabV3Plus
from jaxmoe.models.fast_convolutions import fast_convolutions, native_convolutions
from jaxmoe.models.frrn import FRRN
from jaxmoe.models.gates import ClasswiseGate, SimpleGate
from jaxmoe.models.norm import FrozenBatchNorm, GroupNorm, Normalize
from jaxmoe.models.pool import average_pool_to, max_pool, resize
from jaxmoe.models.residual import BasicBlock, Bottleneck
from jaxmoe.models.resnet import ResNet
from jaxmoe.models.routers import ConvRouter, LinearRouter, PooledRouter
from jaxmoe.models.slowfast import SlowFast
from jaxmoe.models.vit import TransformerBlock, VisionTransformer

__all__ = [
    "FRRN",
    "BasicBlock",
    "Bottleneck",
    "ClasswiseGate",
    "Conv",
    "ConvRouter",
    "DeepLabV3",
    "DeepLabV3Plus",
    "FrozenBatchNorm",
    "GroupNorm",
    "LinearRouter",
    "Normalize",
    "PooledRouter",
    "ResNet",
    "SimpleGate",
    "SlowFast",
    "TransformerBlock",
    "VisionTransformer",
    "average_pool_to",
    "conv",
    "fast_convolutions",
    "max_pool",
    "native_convolutions",
    "resize",
    "weights",
]
