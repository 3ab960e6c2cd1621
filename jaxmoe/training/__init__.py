"""Training: phases, the recipes made of them, the step, the loop and its checkpoints."""

from jaxmoe.training.checkpoints import Checkpoints, DamagedCheckpointError, PreemptedError
from jaxmoe.training.loop import begin_state, fit, restore_params, split_experts
from jaxmoe.training.metrics_log import MetricsLog, read_metrics
from jaxmoe.training.optimizer import adamw
from jaxmoe.training.phase import PARTS, Found, Phase, Recipe, RecipeOptions
from jaxmoe.training.radii import make_measure_radii
from jaxmoe.training.recipes import dense, shared_expert
from jaxmoe.training.schedules import epsilon_schedule, learning_rate_schedule
from jaxmoe.training.stages import LoopOptions, Progress, Stage, copy_expert
from jaxmoe.training.state import Batch, TrainState, fill_up, init_state
from jaxmoe.training.step import make_train_step
from jaxmoe.training.validation import NonFiniteTrainingError, Validation, make_validate

__all__ = [
    "PARTS",
    "Batch",
    "Checkpoints",
    "DamagedCheckpointError",
    "Found",
    "LoopOptions",
    "MetricsLog",
    "NonFiniteTrainingError",
    "Phase",
    "PreemptedError",
    "Progress",
    "Recipe",
    "RecipeOptions",
    "Stage",
    "TrainState",
    "Validation",
    "adamw",
    "begin_state",
    "copy_expert",
    "dense",
    "epsilon_schedule",
    "fill_up",
    "fit",
    "init_state",
    "learning_rate_schedule",
    "make_measure_radii",
    "make_train_step",
    "make_validate",
    "read_metrics",
    "restore_params",
    "shared_expert",
    "split_experts",
]
