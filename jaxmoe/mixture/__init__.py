"""Mixtures: how one is built, how clips are routed and dispatched, how its gradient is seen."""

from jaxmoe.choices import BALANCES, COMBINES, GRADIENT_MODES, Balance, Combine, GradientMode
from jaxmoe.mixture.assignment import assign_evenly
from jaxmoe.mixture.dispatch import dispatch
from jaxmoe.mixture.dual import dual_mixture, robust_part, with_dual_weight
from jaxmoe.mixture.gated import component, ensemble, from_gate, single_expert
from jaxmoe.mixture.gradient_modes import with_gradient
from jaxmoe.mixture.mixture import (
    Head,
    Mixture,
    Router,
    apply_dense,
    apply_soft,
    combine_experts,
    combine_outputs,
    combine_weighted,
    from_functions,
    from_modules,
    no_head,
    noisy_route,
    routers,
    run_parts,
    run_routed,
    stack_experts,
    with_head,
    with_route,
    with_training_route,
)
from jaxmoe.mixture.parts import PartScores, fixed_routes, score_parts
from jaxmoe.mixture.routing import Routing, balance_loss, choose, expert_load, mean_over_classes
from jaxmoe.mixture.sharded import shard_experts

__all__ = [
    "BALANCES",
    "COMBINES",
    "GRADIENT_MODES",
    "Balance",
    "Combine",
    "GradientMode",
    "Head",
    "Mixture",
    "PartScores",
    "Router",
    "Routing",
    "apply_dense",
    "apply_soft",
    "assign_evenly",
    "balance_loss",
    "choose",
    "combine_experts",
    "combine_outputs",
    "combine_weighted",
    "component",
    "dispatch",
    "dual_mixture",
    "ensemble",
    "expert_load",
    "fixed_routes",
    "from_functions",
    "from_gate",
    "from_modules",
    "mean_over_classes",
    "no_head",
    "noisy_route",
    "robust_part",
    "routers",
    "run_parts",
    "run_routed",
    "score_parts",
    "shard_experts",
    "single_expert",
    "stack_experts",
    "with_dual_weight",
    "with_gradient",
    "with_head",
    "with_route",
    "with_training_route",
]
