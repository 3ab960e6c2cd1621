"""JTDMoE in the setting of arXiv 2502.06832, α = 0.7; see `cifar10_standard`.

jaxmoe train configs/image/cifar10_jtdmoe.py \\
    --training.initialize-from runs/cifar10_rt_er \\
    --training.initialize-standard-from runs/cifar10_standard
"""

import dataclasses

from cifar10_standard import adversarial

from jaxmoe.config import Experiment


def config() -> Experiment:
    experiment = adversarial("jtdmoe", beta=6.0)
    mixture = dataclasses.replace(experiment.mixture, alpha=0.7)
    return dataclasses.replace(experiment, mixture=mixture)
