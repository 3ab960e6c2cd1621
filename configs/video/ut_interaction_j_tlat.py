"""J-TLAT (router, weak experts and whole in turn) of the UT-Interaction mixture at ε = 4/255.

jaxmoe train configs/video/ut_interaction_j_tlat.py --data.directory DIR

It starts from clean training, or from a run of `ut_interaction_standard` that
`--training.initialize-from RUN` names, which saves that time. ε rises from 0.
"""

import dataclasses

from ut_interaction_standard import adversarial

from jaxmoe.config import Experiment, JTLATConfig


def config() -> Experiment:
    # Three phases a batch: 25 epochs cost more than the 50 of AT-M.
    experiment = adversarial(JTLATConfig(), epochs=25)
    # At 0.5 one expert took every clip of seed 0: see `training.recipes.router_phase`.
    mixture = dataclasses.replace(experiment.mixture, balance_weight=1.5)
    return dataclasses.replace(experiment, mixture=mixture)
