"""Checkpoints of a run: saved while it trains, checked when they are read."""

from jaxmoe.training.checkpoints.checkpoints import Checkpoints, DamagedCheckpointError
from jaxmoe.training.checkpoints.preemption import PreemptedError, Preemption

__all__ = ["Checkpoints", "DamagedCheckpointError", "PreemptedError", "Preemption"]
