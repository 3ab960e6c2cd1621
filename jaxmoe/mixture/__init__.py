"""Mixtures: how one is built, how clips are routed and dispatched, how its gradient is seen."""

from jaxmoe.mixture.dispatch import dispatch
from jaxmoe.mixture.dual import dual_mixture, robust_part, with_alpha
from jaxmoe.mixture.gated import component, ensemble, from_gate, single_expert
from jaxmoe.mixture.gradient_modes import GRADIENT_MODES, GradientMode, with_gradient
from jaxmoe.mixture.mixture import (
    Head,
    Mixture,
    apply_dense,
    apply_soft,
    combine_experts,
    combine_outputs,
    combine_weighted,
    from_functions,
    from_modules,
    no_head,
    stack_experts,
    with_head,
    with_route,
    with_router_noise,
)
from jaxmoe.mixture.routing import (
    BALANCES,
    COMBINES,
    Balance,
    Combine,
    Routing,
    balance_loss,
    choose,
    expert_load,
)

__all__ = [
    "BALANCES",
    "COMBINES",
    "GRADIENT_MODES",
    "Balance",
    "Combine",
    "GradientMode",
    "Head",
    "Mixture",
    "Routing",
    "apply_dense",
    "apply_soft",
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
    "from_functions",
    "from_gate",
    "from_modules",
    "no_head",
    "robust_part",
    "single_expert",
    "stack_experts",
    "with_alpha",
    "with_gradient",
    "with_head",
    "with_route",
    "with_router_noise",
]
