"""Recipes: each makes the phases of a training step from a mixture, a threat model and options.

`config.RECIPES` has them by name, with the fields of each.
"""

from jaxmoe.training.recipes.adv_moe import adv_moe
from jaxmoe.training.recipes.adversarial import at_m, end_to_end, inner_attack, tlat, trades
from jaxmoe.training.recipes.gate import gate
from jaxmoe.training.recipes.j_tlat import j_tlat, router_phase, weak_experts_phase
from jaxmoe.training.recipes.robust_experts import jtdmoe, rt_er
from jaxmoe.training.recipes.specialists import (
    by_cluster,
    by_likelihood,
    by_own_choice,
    expert_choice,
    specialists,
    specialists_of,
)
from jaxmoe.training.recipes.standard import dense, shared_expert, standard

__all__ = [
    "adv_moe",
    "at_m",
    "by_cluster",
    "by_likelihood",
    "by_own_choice",
    "dense",
    "end_to_end",
    "expert_choice",
    "gate",
    "inner_attack",
    "j_tlat",
    "jtdmoe",
    "router_phase",
    "rt_er",
    "shared_expert",
    "specialists",
    "specialists_of",
    "standard",
    "tlat",
    "trades",
    "weak_experts_phase",
]
