"""A small DeepLabv3+ on one part of CamVid: an expert of `camvid_deeplab_gate`.

jaxmoe train configs/segmentation/camvid_deeplab_expert.py --data.directory DIR \
  --data.subset sequence=0016E5 --run.directory runs/camvid_deeplab_expert0

DIR holds `train`, `trainannot`, …, as SegNet's authors arranged them, at 240 × 180. The parts are
sequences, which a file's name begins with: 0016E5, and 0001TP with 0006R0. Sized for two CPU cores.
"""

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import (
    CamVidConfig,
    DeepLabConfig,
    EvaluationConfig,
    Experiment,
    MixtureConfig,
    OptimizerConfig,
    PooledRouterConfig,
    RunConfig,
    ThreatConfig,
    TrainingConfig,
)


def config() -> Experiment:
    return Experiment(
        data=CamVidConfig(resolution=180, height=144, width=192, flip=True),
        expert=DeepLabConfig(depth=18, width=16, features=32, low_level=16, rates=(2, 4, 6)),
        # One expert is a mixture too, whose router has nothing to say.
        router=PooledRouterConfig(),
        mixture=MixtureConfig(experts=1, balance_weight=0.0),
        threat=ThreatConfig(epsilon=0.03),
        attack=AttackSettings(steps=10, alpha=0.25),
        optimizer=OptimizerConfig(learning_rate=5e-3, weight_decay=1e-2),
        training=TrainingConfig(epochs=60, batch_size=8),
        evaluation=EvaluationConfig(
            attacks=("fgsm", "pgd", "pgd-standing"),
            epsilons=(0.01, 0.02, 0.03, 0.04, 0.05),
            batch_size=8,
            checkpoint="latest",
        ),
        run=RunConfig(directory="runs/camvid_deeplab_expert0", validate_every=0),
    )
