"""`LAYOUTS`: the families of published networks whose names are known."""

from jaxmoe.models.weights.layout import Layout
from jaxmoe.models.weights.resnets import (
    CIFAR_RESNET,
    HARA_RESNET,
    TORCHVISION_R2PLUS1D,
    TORCHVISION_RESNET,
    TORCHVISION_VIDEO,
    TSM,
)
from jaxmoe.models.weights.segmenters import TORCHVISION_DEEPLAB
from jaxmoe.models.weights.slowfast import PYTORCHVIDEO_SLOWFAST, SLOWFAST
from jaxmoe.models.weights.transformers import TORCHVISION_VIT

_ALL = (
    TORCHVISION_RESNET,
    CIFAR_RESNET,
    TORCHVISION_VIT,
    TORCHVISION_VIDEO,
    TORCHVISION_R2PLUS1D,
    HARA_RESNET,
    TSM,
    SLOWFAST,
    PYTORCHVIDEO_SLOWFAST,
    TORCHVISION_DEEPLAB,
)

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}
"""Layouts by name; a `Layout` of one's own can be put here."""
