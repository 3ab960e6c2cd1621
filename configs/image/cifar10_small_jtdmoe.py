"""JTDMoE of a dual model of two mixtures of `cifar10_small_standard` at ε = 8/255.

jaxmoe train configs/image/cifar10_small_jtdmoe.py --data.directory FILE.npz

It starts from the runs of `cifar10_small_rt_er` and `cifar10_small_standard`, where these leave
them or where `--training.initialize-from` and `--training.initialize-standard-from` say.
"""

import dataclasses

from cifar10_small_standard import adversarial

from jaxmoe.config import Experiment, JTDMoEConfig


def config() -> Experiment:
    experiment = adversarial(
        JTDMoEConfig(beta=6.0),
        epochs=4,
        initialize_from="runs/cifar10_small_rt_er",
        initialize_standard_from="runs/cifar10_small_standard",
    )
    mixture = dataclasses.replace(experiment.mixture, dual_weight=0.7)
    return dataclasses.replace(experiment, mixture=mixture)
