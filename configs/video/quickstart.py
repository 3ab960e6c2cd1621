"""The J-TLAT run of `jaxmoe quickstart` by itself: a tiny mixture on rendered clips, in minutes.

jaxmoe train configs/video/quickstart.py
"""

from jaxmoe.config import Experiment
from jaxmoe.runs.quickstart import video


def config() -> Experiment:
    return video("j_tlat", "runs/quickstart/j_tlat")
