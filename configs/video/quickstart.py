"""What `jaxmoe quickstart` trains: a tiny mixture on rendered clips, by J-TLAT, in minutes.

jaxmoe train configs/video/quickstart.py
"""

from jaxmoe.config import Experiment
from jaxmoe.quickstart import experiment


def config() -> Experiment:
    return experiment("j_tlat", "runs/quickstart/j_tlat")
