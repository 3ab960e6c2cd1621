"""J-TLAT in the paper's setting: UCF-101, four 3D ResNet-18 experts, top-1, 112 × 112.

jaxmoe train configs/video/ucf101_j_tlat.py --data.directory DIR

DIR holds `UCF-101/` and `ucfTrainTestlist/`, both extracted. Made for eight accelerators of 40 GB
or more; we never ran it to its end, so no figure stands here.
Published (https://arxiv.org/abs/2602.01369): clean 54.29 %, PGD at 8/255 36.37 %.
"""

from jaxmoe.config import (
    ConvRouterConfig,
    EvaluationConfig,
    Experiment,
    JTLATConfig,
    MixtureConfig,
    OptimizerConfig,
    ResNetConfig,
    RunConfig,
    ThreatConfig,
    TrainingConfig,
    UCF101Config,
)


def config() -> Experiment:
    return Experiment(
        data=UCF101Config(resolution=128, frames=16, height=112, flip=True, workers=8),
        expert=ResNetConfig(depth=18, width=64, stem="large"),
        router=ConvRouterConfig(width=16),
        mixture=MixtureConfig(experts=4, top_k=1, balance_weight=1.5),
        threat=ThreatConfig(epsilon=8 / 255),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=5e-2),
        recipe=JTLATConfig(),
        training=TrainingConfig(
            shared_epochs=40,
            shared_noise=0.05,
            standard_epochs=20,
            epochs=60,
            batch_size=128,
        ),
        evaluation=EvaluationConfig(
            attacks=("pgd-r", "tla-r", "tlga-r", "pgd", "tla-m", "j-tla", "j-tlga"),
            epsilons=(8 / 255, 14 / 255),
            batch_size=64,
        ),
        run=RunConfig(directory="runs/ucf101_j_tlat", checkpoint_every=1, log_every=50),
    )
