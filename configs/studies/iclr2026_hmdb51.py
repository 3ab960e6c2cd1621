"""The tables of arXiv 2602.01369 on HMDB-51: as `iclr2026_ucf101`, over its three official splits.

jaxmoe study configs/studies/iclr2026_hmdb51.py --data.directory DIR

Made for accelerators; we never ran it. On 16 TPU v5e, `jaxmoe plan configs/video/hmdb51_j_tlat.py
--devices v5e-16 --no-compile --attack.iterate best`, whose attacks take a look more than the
study's, predicts 128 epochs of J-TLAT an hour with 3D ResNet-18 experts; with the others' fields
128 with TSM, 231 with SlowFast and 22 with R(2+1)D. So the 17 of one defence take 8, 8, 4 and 46
minutes, and 14 defences of each on three splits some 47 hours, 32 of them R(2+1)D's; starts and
attacks come on top.
"""

import dataclasses
import pathlib
import sys

from jaxmoe.config import Study

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "video"))
from hmdb51_j_tlat import config
from iclr2026_ucf101 import of


def study() -> Study:
    folds = {f"split{split}": {"data.split": split} for split in (1, 2, 3)}
    return dataclasses.replace(of(config()), folds=folds)
