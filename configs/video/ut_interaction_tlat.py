"""TLAT (TLA-M attacks, Lipschitz loss, end to end) of the UT-Interaction mixture at ε = 4/255.

jaxmoe train configs/video/ut_interaction_tlat.py --data.directory DIR

It starts from clean training, or from a run of `ut_interaction_standard` that
`--training.initialize-from RUN` names, which saves that time. ε rises from 0.
"""

from ut_interaction_standard import adversarial

from jaxmoe.config import Experiment, TLATConfig


def config() -> Experiment:
    return adversarial(TLATConfig(), epochs=50)
