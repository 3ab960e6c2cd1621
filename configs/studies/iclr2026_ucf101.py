"""The tables of arXiv 2602.01369 on UCF-101: all defences × attacks × architectures.

jaxmoe study configs/studies/iclr2026_ucf101.py --data.directory DIR

ε = 8 and 14 /255; 3D ResNet-18, R(2+1)D-18, TSM-ResNet-18 and SlowFast experts of depth 18, M = 4,
top-1. The paper trains each defence for as many epochs; here each may cost as much, in gradients of
its own network. Made for accelerators; we never ran it. Look at two numbers first: λ of TLAT and
J-TLAT beside the clean mixture's L_Lip, and the learning rate of the epochs in which copies part.
Both mattered in `ut_interaction.py`.

On 16 TPU v5e, `jaxmoe plan configs/video/ucf101_j_tlat.py --devices v5e-16 --no-compile
--attack.iterate best`, whose attacks take a look more than the study's, predicts 48 epochs of
J-TLAT an hour with 3D ResNet-18 experts; with the others' fields 48 with TSM, 86 with SlowFast and
8 with R(2+1)D. An epoch costs some 35 gradients, so the 600 of one defence are 17 epochs: 0.4, 0.4,
0.2 and 2 hours. 14 defences of each take some 41 hours, 29 of them R(2+1)D's, with OUD-M as one of
them, though its networks take 1.6 to 2.2 times the operations (`jaxmoe show` with
`--expert.restoration true`). Starts and attacks come on top. The plan assumes 30 % of the peak.
"""

import dataclasses
import pathlib
import sys

from jaxmoe.config import Experiment, StandardConfig, Study, video_defences

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "video"))
from ucf101_j_tlat import config


def study() -> Study:
    return of(config())


def of(experiment: Experiment) -> Study:
    """The study of an experiment that trains J-TLAT in the paper's setting."""
    shared, together = experiment.training.shared_epochs, experiment.training.standard_epochs
    training = dataclasses.replace(experiment.training, epochs=together, standard_epochs=0)
    return Study(
        experiment=dataclasses.replace(experiment, recipe=StandardConfig(), training=training),
        arms=video_defences(experts=experiment.mixture.experts, clean_epochs=shared + together),
        architectures={
            "resnet3d18": {},
            "r2plus1d18": {"expert": "r2plus1d", "expert.depth": 18, "expert.stem": "video"},
            "tsm18": {"expert": "tsm", "expert.depth": 18},
            "slowfast": {"expert": "slowfast"},
        },
        gradients=600,
        attacks=(
            *("pgd-r", "tla-r", "tlga-r", "pgd", "tla-m", "j-tla", "j-tlga"),
            *("fgsm", "mi-fgsm", "pgd-e", "tla-e"),
            *("auto-attack", "enumerated-route", "sparse", "flicker", "square"),
        ),
        epsilons=(8 / 255, 14 / 255),
        transfer=("pgd", "j-tlga"),
        compared=("j_tlat",),
        simplest="at_s",
    )
