"""RT-ER in the setting of arXiv 2502.06832, β = 6; see `cifar10_standard`.

jaxmoe train configs/image/cifar10_rt_er.py
"""

from cifar10_standard import adversarial

from jaxmoe.config import Experiment, RTERConfig


def config() -> Experiment:
    return adversarial(RTERConfig(beta=6.0))
