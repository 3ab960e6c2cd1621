"""J-TLAT in the paper's setting: HMDB-51, four 3D ResNet-18 experts, top-1, 112 × 112.

jaxmoe train configs/video/hmdb51_j_tlat.py --data.directory DIR

DIR holds the class folders and `testTrainMulti_7030_splits/`, extracted. All numbers are those of
`ucf101_j_tlat`; we never ran it to its end either, so no figure stands here.
"""

import dataclasses

import ucf101_j_tlat

from jaxmoe.config import Experiment
from jaxmoe.registry import switch


def config() -> Experiment:
    ucf101 = ucf101_j_tlat.config()
    return dataclasses.replace(
        ucf101,
        data=switch(ucf101.data, "hmdb51", "data"),
        run=dataclasses.replace(ucf101.run, directory="runs/hmdb51_j_tlat"),
    )
