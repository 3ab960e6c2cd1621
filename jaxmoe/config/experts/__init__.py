"""The architectures that an expert may have, each with its own fields.

An architecture of one's own is a subclass of `ExpertConfig` in `EXPERTS`. Those here import their
modules when they are built, so that help needs no JAX.
"""

from jaxmoe.config.experts.expert import EXPERTS, ExpertConfig, NormalizingConfig, Refusal
from jaxmoe.config.experts.residual import (
    MC3Config,
    R2Plus1DConfig,
    ResNetConfig,
    SlowFastConfig,
    TSMConfig,
)
from jaxmoe.config.experts.segmentation import DeepLabConfig, DeepLabV3Config, FRRNConfig
from jaxmoe.config.experts.transformers import ViTConfig, ViViTConfig

__all__ = [
    "EXPERTS",
    "DeepLabConfig",
    "DeepLabV3Config",
    "ExpertConfig",
    "FRRNConfig",
    "MC3Config",
    "NormalizingConfig",
    "R2Plus1DConfig",
    "Refusal",
    "ResNetConfig",
    "SlowFastConfig",
    "TSMConfig",
    "ViTConfig",
    "ViViTConfig",
]
