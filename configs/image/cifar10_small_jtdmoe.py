"""JTDMoE of a dual model of two mixtures of `cifar10_small_standard` at ε = 8/255.

jaxmoe train configs/image/cifar10_small_jtdmoe.py --data.directory FILE.npz \\
    --training.initialize-from ROBUST_RUN --training.initialize-standard-from STANDARD_RUN

ROBUST_RUN is of `cifar10_small_rt_er`, STANDARD_RUN of `cifar10_small_standard`.
"""

import dataclasses

from cifar10_small_standard import adversarial

from jaxmoe.config import Experiment


def config() -> Experiment:
    experiment = adversarial("jtdmoe", epochs=4, beta=6.0)
    mixture = dataclasses.replace(experiment.mixture, alpha=0.7)
    return dataclasses.replace(experiment, mixture=mixture)
