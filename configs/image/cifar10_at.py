"""PGD adversarial training in the setting of arXiv 2502.06832; see `cifar10_standard`.

jaxmoe train configs/image/cifar10_at.py
"""

from cifar10_standard import adversarial

from jaxmoe.config import ATMConfig, Experiment


def config() -> Experiment:
    return adversarial(ATMConfig())
