"""A mixture of two experts of `camvid_deeplab_expert`, whose gate alone is trained.

jaxmoe train configs/segmentation/camvid_deeplab_gate.py --data.directory DIR

The experts are runs/camvid_deeplab_expert0 and 1, or those of `--training.initialize-experts-from`.
`--router.name classwise_gate` weighs each class by itself; `--mixture.head conv` puts a convolution
behind the weighted logits.
"""

import dataclasses

import camvid_deeplab_expert

from jaxmoe.config import (
    Experiment,
    GateConfig,
    MixtureConfig,
    OptimizerConfig,
    SimpleGateConfig,
    TrainingConfig,
)


def gated(expert: Experiment) -> Experiment:
    """The mixture of two of these experts."""
    first, height = expert.run.directory, expert.data.resolution
    return dataclasses.replace(
        expert,
        # Whole images: a gate's layers are made for one size.
        data=dataclasses.replace(expert.data, height=height, width=4 * height // 3),
        router=SimpleGateConfig(width=128),
        mixture=MixtureConfig(experts=2, top_k=2, balance_weight=0.0),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=1e-2),
        recipe=GateConfig(),
        training=TrainingConfig(
            epochs=6,
            batch_size=8,
            initialize_experts_from=(first, first.replace("expert0", "expert1")),
        ),
        run=dataclasses.replace(expert.run, directory=first.replace("expert0", "gate")),
    )


def config() -> Experiment:
    return gated(camvid_deeplab_expert.config())
