"""Networks that label pixels, as torchvision has them."""

from jaxmoe.models.deeplab import DeepLabV3
from jaxmoe.models.weights.layout import Layout, Tensors
from jaxmoe.models.weights.resnets import BLOCKS, IMAGENET, blocks_of, has

_STEM = {"conv1": "stem", "bn1": "norm_stem"}


def _deeplab(tensors: Tensors) -> DeepLabV3:
    backbone = {n: tensor for n, tensor in tensors.items() if n.startswith("backbone.")}
    return DeepLabV3(
        len(tensors["classifier.4.weight"]),
        **blocks_of(backbone),
        width=len(tensors["backbone.conv1.weight"]),
        features=len(tensors["classifier.1.weight"]),
        norm="frozen_batch",
        **IMAGENET,
    )


TORCHVISION_DEEPLAB = Layout(
    "torchvision_deeplab",
    "torchvision deeplabv3_resnet50",
    {
        **{rf"backbone\.{name}": ours for name, ours in (_STEM | BLOCKS).items()},
        r"classifier\.0\.convs\.([0-3])\.0": "pyramid_{0}_conv",
        r"classifier\.0\.convs\.([0-3])\.1": "pyramid_{0}_norm",
        r"classifier\.0\.convs\.4\.1": "pyramid_image_conv",
        r"classifier\.0\.convs\.4\.2": "pyramid_image_norm",
        r"classifier\.0\.project\.0": "pyramid_conv",
        r"classifier\.0\.project\.1": "pyramid_norm",
        r"classifier\.1": "decoder_conv",
        r"classifier\.2": "decoder_norm",
        r"classifier\.4": "head",
    },
    _deeplab,
    lambda tensors: has(tensors, backbone__conv1=4, classifier__0__project__0=4, classifier__4=4),
    lambda _: (32, 32, 3),
    left_out=(r"aux_classifier\..*",),
)
