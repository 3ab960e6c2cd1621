"""JTDMoE in the setting of arXiv 2502.06832, α = 0.7; see `cifar10_standard`.

jaxmoe train configs/image/cifar10_jtdmoe.py

It starts from the runs of `cifar10_rt_er` and `cifar10_standard`, where these leave them or where
`--training.initialize-from` and `--training.initialize-standard-from` say.
"""

import dataclasses

from cifar10_standard import adversarial

from jaxmoe.config import Experiment, JTDMoEConfig


def config() -> Experiment:
    experiment = adversarial(
        JTDMoEConfig(beta=6.0),
        initialize_from="runs/cifar10_rt_er",
        initialize_standard_from="runs/cifar10_standard",
    )
    mixture = dataclasses.replace(experiment.mixture, dual_weight=0.7)
    return dataclasses.replace(experiment, mixture=mixture)
