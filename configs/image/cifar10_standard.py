"""Clean training in the setting of arXiv 2502.06832: CIFAR-10, four ResNet-18 experts, top-1.

jaxmoe train configs/image/cifar10_standard.py

CIFAR-10 is downloaded; without a network, `--data.directory cifar-10-binary.tar.gz`. Made for one
accelerator; we never ran it to its end, so no figure stands here.
"""

import dataclasses

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import (
    CIFAR10Config,
    ConvRouterConfig,
    EvaluationConfig,
    Experiment,
    MixtureConfig,
    OptimizerConfig,
    RecipeConfig,
    ResNetConfig,
    RunConfig,
    ThreatConfig,
    TrainingConfig,
)

_STANDARD = Experiment(
    data=CIFAR10Config(height=32, padding=4, flip=True, workers=8),
    expert=ResNetConfig(depth=18, width=64, stem="small", stem_strides=(1, 1, 1)),
    router=ConvRouterConfig(width=16),
    mixture=MixtureConfig(experts=4, top_k=1, balance_weight=0.5),
    threat=ThreatConfig(epsilon=8 / 255),
    optimizer=OptimizerConfig(learning_rate=2e-3, weight_decay=5e-2),
    training=TrainingConfig(shared_epochs=30, shared_noise=0.05, epochs=30, batch_size=128),
    evaluation=EvaluationConfig(
        attacks=("pgd", "pgd-r", "pgd-e", "auto-attack"),
        epsilons=(8 / 255,),
        steps=50,
        batch_size=256,
    ),
    run=RunConfig(directory="runs/cifar10_standard", log_every=50),
)


def config() -> Experiment:
    return _STANDARD


def adversarial(recipe: RecipeConfig, **training) -> Experiment:
    """The same under an adversarial recipe: ten steps of 2/255, after clean training."""
    return dataclasses.replace(
        _STANDARD,
        attack=AttackSettings(steps=10, alpha=0.25),
        recipe=recipe,
        training=TrainingConfig(
            epochs=100,
            shared_epochs=_STANDARD.training.shared_epochs,
            shared_noise=_STANDARD.training.shared_noise,
            standard_epochs=_STANDARD.training.epochs,
            batch_size=_STANDARD.training.batch_size,
            **training,
        ),
        run=dataclasses.replace(_STANDARD.run, directory=f"runs/cifar10_{recipe.name}"),
    )
