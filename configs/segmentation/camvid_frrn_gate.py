"""A mixture of two experts of `camvid_frrn_expert`, whose gate alone is trained.

jaxmoe train configs/segmentation/camvid_frrn_gate.py --data.directory DIR

Experts and other gates are as in `camvid_deeplab_gate`.
"""

import camvid_frrn_expert
from camvid_deeplab_gate import gated

from jaxmoe.config import Experiment


def config() -> Experiment:
    return gated(camvid_frrn_expert.config())
