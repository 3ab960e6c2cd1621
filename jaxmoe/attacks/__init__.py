"""Attacks: one loop, objectives and updates that compose, and the papers' attacks made of them."""

from jaxmoe.attacks.attack import Attack, as_apply, constant_step, temporal_step
from jaxmoe.attacks.auto_pgd import apgd_ce, apgd_dlr, apgd_t
from jaxmoe.attacks.cascade import CASCADES, Cascade, Stage, stage
from jaxmoe.attacks.component_attacks import (
    expert_loss,
    expert_loss_of_pair,
    j_tla,
    j_tlga,
    pgd_e,
    pgd_r,
    router_loss,
    tla_e,
    tla_r,
    tlga_r,
)
from jaxmoe.attacks.enumerated_attacks import (
    enumerated_route,
    j_tlga_t,
    pgd_e_t,
    pgd_each_e,
    pgd_r_t,
    pgd_t,
)
from jaxmoe.attacks.fab import fab, fab_t
from jaxmoe.attacks.gradient_attacks import (
    fgsm,
    mi_fgsm,
    model_loss,
    model_loss_of_pair,
    pgd,
    pgd_standing,
    tla_m,
)
from jaxmoe.attacks.objectives import (
    cross_entropy,
    difference_of_logits_ratio,
    kl_divergence,
    lipschitz_quotient,
    margin,
    mean_over_labelled,
    router_output,
    standing_cross_entropy,
    targeted_difference_of_logits_ratio,
)
from jaxmoe.attacks.perturb import AttackResult, Objective, perturb
from jaxmoe.attacks.randomized import Randomized
from jaxmoe.attacks.registry import ATTACKS, NamedAttack, build_attack, canonical_name, find_attack
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.attacks.square import square
from jaxmoe.attacks.temporal_attacks import flicker, sparse, tt
from jaxmoe.attacks.universal import (
    apply_universal,
    fit_universal,
    universal_attack,
    universal_step,
)
from jaxmoe.attacks.updates import momentum, steepest_direction, steepest_step, temporal_momentum

__all__ = [
    "ATTACKS",
    "CASCADES",
    "Attack",
    "AttackResult",
    "AttackSettings",
    "Cascade",
    "NamedAttack",
    "Objective",
    "Randomized",
    "Stage",
    "apgd_ce",
    "apgd_dlr",
    "apgd_t",
    "apply_universal",
    "as_apply",
    "build_attack",
    "canonical_name",
    "constant_step",
    "cross_entropy",
    "difference_of_logits_ratio",
    "enumerated_route",
    "expert_loss",
    "expert_loss_of_pair",
    "fab",
    "fab_t",
    "fgsm",
    "find_attack",
    "fit_universal",
    "flicker",
    "j_tla",
    "j_tlga",
    "j_tlga_t",
    "kl_divergence",
    "lipschitz_quotient",
    "margin",
    "mean_over_labelled",
    "mi_fgsm",
    "model_loss",
    "model_loss_of_pair",
    "momentum",
    "perturb",
    "pgd",
    "pgd_e",
    "pgd_e_t",
    "pgd_each_e",
    "pgd_r",
    "pgd_r_t",
    "pgd_standing",
    "pgd_t",
    "router_loss",
    "router_output",
    "sparse",
    "square",
    "stage",
    "standing_cross_entropy",
    "steepest_direction",
    "steepest_step",
    "targeted_difference_of_logits_ratio",
    "temporal_momentum",
    "temporal_step",
    "tla_e",
    "tla_m",
    "tla_r",
    "tlga_r",
    "tt",
    "universal_attack",
    "universal_step",
]
