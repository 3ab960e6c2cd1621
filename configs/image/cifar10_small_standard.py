"""Clean training of a mixture of four small ResNets on a part of CIFAR-10 in an .npz file.

jaxmoe train configs/image/cifar10_small_standard.py --data.directory FILE.npz

FILE.npz has `x_train`, `y_train`, `x_test`, `y_test`. Sized for two CPU cores and a few thousand
images: the stem halves the picture, so that a gradient costs a quarter of the usual network's.
"""

import dataclasses

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import (
    EvaluationConfig,
    Experiment,
    MixtureConfig,
    NpzConfig,
    OptimizerConfig,
    RecipeConfig,
    ResNetConfig,
    RunConfig,
    ThreatConfig,
    TrainingConfig,
)

_STANDARD = Experiment(
    data=NpzConfig(height=32, padding=4, flip=True),
    expert=ResNetConfig(width=16, stage_sizes=(1, 1, 1), stem="small", stem_strides=(1, 2, 2)),
    mixture=MixtureConfig(experts=4, top_k=1, balance_weight=0.5),
    threat=ThreatConfig(epsilon=8 / 255),
    optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=5e-2),
    training=TrainingConfig(
        shared_epochs=15,
        shared_noise=0.05,
        dense_epochs=0,
        epochs=15,
        batch_size=64,
    ),
    evaluation=EvaluationConfig(
        attacks=("pgd", "pgd-r", "pgd-e"),
        epsilons=(8 / 255,),
        steps=50,
        batch_size=128,
        # The others start from it, and recipes of fewer epochs would have fewer to choose from.
        checkpoint="latest",
    ),
    run=RunConfig(directory="runs/cifar10_small_standard"),
)


def config() -> Experiment:
    return _STANDARD


def adversarial(recipe: RecipeConfig, **training) -> Experiment:
    """The same network and data under an adversarial recipe, from its standard run on."""
    return dataclasses.replace(
        _STANDARD,
        # launch/studies/cifar10 was trained on best iterates.
        attack=AttackSettings(steps=5, alpha=0.4, iterate="best"),
        optimizer=dataclasses.replace(_STANDARD.optimizer, learning_rate=2e-3),
        recipe=recipe,
        training=TrainingConfig(
            shared_epochs=_STANDARD.training.shared_epochs,
            shared_noise=_STANDARD.training.shared_noise,
            standard_epochs=_STANDARD.training.epochs,
            batch_size=_STANDARD.training.batch_size,
            **training,
        ),
        run=RunConfig(directory=f"runs/cifar10_small_{recipe.name}"),
    )
