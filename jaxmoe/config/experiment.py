"""`Experiment`: everything that decides a run."""

import dataclasses
from typing import ClassVar

from jaxmoe.config.experts import ExpertConfig, ResNetConfig
from jaxmoe.config.recipes import RecipeConfig, StandardConfig
from jaxmoe.config.routers import ConvRouterConfig, RouterConfig
from jaxmoe.config.sections import (
    EvaluationConfig,
    MixtureConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    ThreatConfig,
    TrainingConfig,
)
from jaxmoe.data.kinds import DataConfig
from jaxmoe.data.sets import SyntheticActionsConfig
from jaxmoe.settings import AttackSettings


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides a run.

    `attack` has the numbers of the attacks inside training; λ, β and γ of evaluation too.
    """

    data: DataConfig = SyntheticActionsConfig()
    expert: ExpertConfig = ResNetConfig()
    router: RouterConfig = ConvRouterConfig()
    mixture: MixtureConfig = MixtureConfig()
    threat: ThreatConfig = ThreatConfig()
    attack: AttackSettings = AttackSettings()
    optimizer: OptimizerConfig = OptimizerConfig()
    recipe: RecipeConfig = StandardConfig()
    training: TrainingConfig = TrainingConfig()
    parallel: ParallelConfig = ParallelConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()

    # What fields were called before, and what each is now.
    renamed: ClassVar[dict[str, str]] = {
        "training.recipe": "recipe",
        "training.schedule": "recipe.order",
        **{
            f"training.{name}": f"recipe.{name}"
            for name in ("global_attack", "weak_experts", "lam", "beta", "expert_attack")
        },
        "training.upper_moves": "recipe.upper_moves",
        "mixture.alpha": "mixture.dual_weight",
        "run.evaluate_every": "run.validate_every",
        "data.short": "data.short_videos",
        "data.size": "data.height",
        "attack.until_wrong": "attack.early_stop",
    }
