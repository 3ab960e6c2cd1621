"""RT-ER (robust experts) of the mixture of `cifar10_small_standard` at ε = 8/255, β = 6.

jaxmoe train configs/image/cifar10_small_rt_er.py --data.directory FILE.npz

It starts from clean training, or from a run that `--training.initialize-from RUN` names. Two
attacks a batch: 8 epochs cost about what 16 of `cifar10_small_at` do.
"""

from cifar10_small_standard import adversarial

from jaxmoe.config import Experiment, RTERConfig


def config() -> Experiment:
    return adversarial(RTERConfig(beta=6.0), epochs=8)
