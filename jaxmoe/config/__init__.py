"""Typed configuration: what an experiment is, as frozen dataclasses.

A file in `configs/` has `config()`, which returns an `Experiment`. Data set, expert, router and
recipe each bring their own fields (`DATASETS`, `EXPERTS`, `ROUTERS`, `RECIPES`); the other sections
are the same for all. Every field can be overridden on the command line under its own name,
`--optimizer.learning-rate 3e-4`. `validate` finds impossible values before anything compiles; each
error is one line with the field, its value and what would do.
"""

from jaxmoe.config.check import check_attacks, check_recipe, validate, validate_data
from jaxmoe.config.experiment import Experiment
from jaxmoe.config.experts import (
    EXPERTS,
    DeepLabConfig,
    DeepLabV3Config,
    ExpertConfig,
    FRRNConfig,
    MC3Config,
    R2Plus1DConfig,
    ResNetConfig,
    SlowFastConfig,
    TSMConfig,
    ViTConfig,
    ViViTConfig,
)
from jaxmoe.config.recipes import (
    RECIPES,
    ATMConfig,
    GateConfig,
    JTDMoEConfig,
    JTLATConfig,
    RecipeConfig,
    RTERConfig,
    StandardConfig,
    TLATConfig,
    TRADESConfig,
)
from jaxmoe.config.records import from_dict, to_dict
from jaxmoe.config.routers import (
    ROUTERS,
    ClasswiseGateConfig,
    ConvRouterConfig,
    LinearRouterConfig,
    PooledRouterConfig,
    RouterConfig,
    SimpleGateConfig,
)
from jaxmoe.config.sections import (
    EvaluationConfig,
    MixtureConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    ThreatConfig,
    TrainingConfig,
)
from jaxmoe.data.kinds import DATASETS, DataConfig
from jaxmoe.data.sets import (
    A2D2Config,
    CamVidConfig,
    CIFAR10Config,
    CityscapesConfig,
    HMDB51Config,
    ImageFolderConfig,
    NpzConfig,
    SegmentationFolderConfig,
    SyntheticActionsConfig,
    SyntheticScenesConfig,
    SyntheticShapesConfig,
    TinyImageNetConfig,
    UCF101Config,
    VideoFolderConfig,
)
from jaxmoe.options import option
from jaxmoe.plugins import load_plugins
from jaxmoe.settings import AttackSettings

__all__ = [
    "DATASETS",
    "EXPERTS",
    "RECIPES",
    "ROUTERS",
    "A2D2Config",
    "ATMConfig",
    "AttackSettings",
    "CIFAR10Config",
    "CamVidConfig",
    "CityscapesConfig",
    "ClasswiseGateConfig",
    "ConvRouterConfig",
    "DataConfig",
    "DeepLabConfig",
    "DeepLabV3Config",
    "EvaluationConfig",
    "Experiment",
    "ExpertConfig",
    "FRRNConfig",
    "GateConfig",
    "HMDB51Config",
    "ImageFolderConfig",
    "JTDMoEConfig",
    "JTLATConfig",
    "LinearRouterConfig",
    "MC3Config",
    "MixtureConfig",
    "NpzConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PooledRouterConfig",
    "R2Plus1DConfig",
    "RTERConfig",
    "RecipeConfig",
    "ResNetConfig",
    "RouterConfig",
    "RunConfig",
    "SegmentationFolderConfig",
    "SimpleGateConfig",
    "SlowFastConfig",
    "StandardConfig",
    "SyntheticActionsConfig",
    "SyntheticScenesConfig",
    "SyntheticShapesConfig",
    "TLATConfig",
    "TRADESConfig",
    "TSMConfig",
    "ThreatConfig",
    "TinyImageNetConfig",
    "TrainingConfig",
    "UCF101Config",
    "ViTConfig",
    "ViViTConfig",
    "VideoFolderConfig",
    "check_attacks",
    "check_recipe",
    "from_dict",
    "load_plugins",
    "option",
    "to_dict",
    "validate",
    "validate_data",
]
