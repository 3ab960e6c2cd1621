"""Clean training of a mixture of four small 3D ResNets on UT-Interaction, 6 classes.

jaxmoe train configs/video/ut_interaction_standard.py --data.directory DIR

One expert learns from all clips and is copied to the four; all four learn from all clips; then the
router sends each clip to one. Experts that see a quarter of 84 clips from the start learn little.
`configs/studies/ut_interaction.py` compares such mixtures, on smaller clips, with one network.
"""

import dataclasses

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import (
    EvaluationConfig,
    Experiment,
    MixtureConfig,
    OptimizerConfig,
    RecipeConfig,
    ResNetConfig,
    RunConfig,
    ThreatConfig,
    TrainingConfig,
    VideoFolderConfig,
)

_STANDARD = Experiment(
    data=VideoFolderConfig(resolution=64, frames=8, height=56, flip=True),
    expert=ResNetConfig(depth=10, width=16, stem="small"),
    mixture=MixtureConfig(experts=4, top_k=1, balance_weight=0.5),
    threat=ThreatConfig(epsilon=4 / 255),
    # launch/studies/ut_interaction was trained on best iterates.
    attack=AttackSettings(iterate="best"),
    optimizer=OptimizerConfig(learning_rate=2e-3, weight_decay=1e-2),
    training=TrainingConfig(
        shared_epochs=60,
        shared_noise=0.05,
        dense_epochs=10,
        epochs=12,
        batch_size=16,
    ),
    evaluation=EvaluationConfig(
        attacks=(
            *("fgsm", "pgd", "mi-fgsm", "pgd-r", "tla-r", "tlga-r"),
            *("pgd-e", "tla-e", "tla-m", "j-tla", "j-tlga"),
        ),
        epsilons=(2 / 255, 4 / 255, 8 / 255),
        # Ten validation clips cannot choose between epochs.
        checkpoint="latest",
    ),
    run=RunConfig(directory="runs/ut_interaction_standard"),
)


def config() -> Experiment:
    return _STANDARD


def adversarial(recipe: RecipeConfig, **training) -> Experiment:
    """The same network and data under an adversarial recipe, after the same clean start."""
    return dataclasses.replace(
        _STANDARD,
        attack=dataclasses.replace(_STANDARD.attack, steps=5, alpha=0.4, temporal_alpha=0.8),
        optimizer=dataclasses.replace(_STANDARD.optimizer, learning_rate=1e-3),
        recipe=recipe,
        training=TrainingConfig(
            shared_epochs=_STANDARD.training.shared_epochs,
            shared_noise=_STANDARD.training.shared_noise,
            dense_epochs=_STANDARD.training.dense_epochs,
            standard_epochs=_STANDARD.training.epochs,
            batch_size=_STANDARD.training.batch_size,
            **training,
        ),
        run=RunConfig(directory=f"runs/ut_interaction_{recipe.name}"),
    )
