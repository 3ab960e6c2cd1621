"""A small FRRN-A on one part of CamVid: an expert of `camvid_frrn_gate`.

jaxmoe train configs/segmentation/camvid_frrn_expert.py --data.directory DIR \
  --data.subset sequence=0016E5 --run.directory runs/camvid_frrn_expert0

All else is as in `camvid_deeplab_expert`, but for images of 120 × 90: with its stream at full
resolution a gradient takes nine times as long as DeepLabv3+'s.
"""

import dataclasses

import camvid_deeplab_expert

from jaxmoe.config import Experiment, FRRNConfig


def config() -> Experiment:
    deeplab = camvid_deeplab_expert.config()
    return dataclasses.replace(
        deeplab,
        data=dataclasses.replace(deeplab.data, resolution=90, height=72, width=96),
        expert=FRRNConfig(variant="A", width=8, residual_width=8),
        training=dataclasses.replace(deeplab.training, epochs=40),
        run=dataclasses.replace(deeplab.run, directory="runs/camvid_frrn_expert0"),
    )
