"""PGD adversarial training (AT-M) of the UT-Interaction mixture at ε = 4/255.

jaxmoe train configs/video/ut_interaction_at_m.py --data.directory DIR

It starts from clean training, or from a run of `ut_interaction_standard` that
`--training.initialize-from RUN` names, which saves that time. ε rises from 0.
"""

from ut_interaction_standard import adversarial

from jaxmoe.config import ATMConfig, Experiment


def config() -> Experiment:
    return adversarial(ATMConfig(), epochs=50)
