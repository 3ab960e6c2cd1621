"""Recipes: each makes the phases of a training step from a mixture, a threat model and options."""

from jaxmoe.training.phase import Recipe
from jaxmoe.training.recipes.adversarial import at_m, global_phase, inner_attack, tlat
from jaxmoe.training.recipes.j_tlat import j_tlat, router_phase, weak_experts_phase
from jaxmoe.training.recipes.standard import dense, shared_expert, standard

RECIPES: dict[str, Recipe] = {"standard": standard, "at_m": at_m, "tlat": tlat, "j_tlat": j_tlat}

__all__ = [
    "RECIPES",
    "at_m",
    "dense",
    "global_phase",
    "inner_attack",
    "j_tlat",
    "router_phase",
    "shared_expert",
    "standard",
    "tlat",
    "weak_experts_phase",
]
