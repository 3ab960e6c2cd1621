"""PGD adversarial training of the mixture of `cifar10_small_standard` at ε = 8/255.

jaxmoe train configs/image/cifar10_small_at.py --data.directory FILE.npz

It starts from clean training, or from a run that `--training.initialize-from RUN` names.
"""

from cifar10_small_standard import adversarial

from jaxmoe.config import ATMConfig, Experiment


def config() -> Experiment:
    return adversarial(ATMConfig(), epochs=16)
