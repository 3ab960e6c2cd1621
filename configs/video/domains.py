"""Rendered motions in four domains, in each of which a motion means another class.

jaxmoe train configs/video/domains.py

Thin experts on a task that is too much for one of them: there is something to specialise in. It
takes seven minutes on one core of two and is right on four in five test clips, where one expert
trained as long is right on half. `launch/studies/specialists` compares ways to get there and
attacks them, and has the tables.
"""

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import (
    EvaluationConfig,
    Experiment,
    MixtureConfig,
    OptimizerConfig,
    ResNetConfig,
    RunConfig,
    SyntheticActionsConfig,
    ThreatConfig,
    TrainingConfig,
)


def config() -> Experiment:
    return Experiment(
        data=SyntheticActionsConfig(
            domains=4,
            frames=8,
            height=24,
            train_clips=2048,
            validation_clips=160,
            test_clips=480,
        ),
        expert=ResNetConfig(width=4, stage_sizes=(1, 1, 1), stem="small", stem_strides=(1, 2, 2)),
        mixture=MixtureConfig(experts=4, top_k=1, balance_weight=0.1),
        threat=ThreatConfig(epsilon=4 / 255),
        # launch/studies/specialists was trained on best iterates.
        attack=AttackSettings(steps=3, alpha=0.5, temporal_alpha=1.0, iterate="best"),
        optimizer=OptimizerConfig(learning_rate=5e-3),
        training=TrainingConfig(
            specialize="clusters",
            specialize_epochs=36,
            epochs=4,
            batch_size=32,
        ),
        evaluation=EvaluationConfig(
            attacks=("pgd", "tlga-r", "j-tlga"),
            epsilons=(4 / 255, 8 / 255),
            batch_size=96,
            checkpoint="latest",
        ),
        run=RunConfig(directory="runs/domains", validate_every=10, log_every=20),
    )
