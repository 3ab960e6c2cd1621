"""Attacks: one loop, objectives and updates that compose, and the papers' attacks made of them."""

from jaxmoe.attacks.attack import Attack, as_apply, constant_step, temporal_step
from jaxmoe.attacks.auto_pgd import auto_pgd, auto_pgd_ratio, auto_pgd_targeted
from jaxmoe.attacks.cascade import CASCADES, Cascade, Stage, stage
from jaxmoe.attacks.component_attacks import (
    expert_attack,
    expert_loss,
    guided_router_attack,
    joint_attack,
    joint_guided_attack,
    lipschitz_expert_attack,
    lipschitz_router_attack,
    router_attack,
    router_loss,
)
from jaxmoe.attacks.enumerated_attacks import (
    each_expert_attack,
    enumerated_route_attack,
    targeted_expert_attack,
    targeted_joint_attack,
    targeted_pgd,
    targeted_router_attack,
)
from jaxmoe.attacks.fab import fab, fab_targeted
from jaxmoe.attacks.gradient_attacks import (
    fgsm,
    lipschitz_attack,
    mi_fgsm,
    model_loss,
    pgd,
    standing_pgd,
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
from jaxmoe.attacks.temporal_attacks import flickering, sparse_frames_attack, temporal_translation
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
    "apply_universal",
    "as_apply",
    "auto_pgd",
    "auto_pgd_ratio",
    "auto_pgd_targeted",
    "build_attack",
    "canonical_name",
    "constant_step",
    "cross_entropy",
    "difference_of_logits_ratio",
    "each_expert_attack",
    "enumerated_route_attack",
    "expert_attack",
    "expert_loss",
    "fab",
    "fab_targeted",
    "fgsm",
    "find_attack",
    "fit_universal",
    "flickering",
    "guided_router_attack",
    "joint_attack",
    "joint_guided_attack",
    "kl_divergence",
    "lipschitz_attack",
    "lipschitz_expert_attack",
    "lipschitz_quotient",
    "lipschitz_router_attack",
    "margin",
    "mean_over_labelled",
    "mi_fgsm",
    "model_loss",
    "momentum",
    "perturb",
    "pgd",
    "router_attack",
    "router_loss",
    "router_output",
    "sparse_frames_attack",
    "square",
    "stage",
    "standing_cross_entropy",
    "standing_pgd",
    "steepest_direction",
    "steepest_step",
    "targeted_difference_of_logits_ratio",
    "targeted_expert_attack",
    "targeted_joint_attack",
    "targeted_pgd",
    "targeted_router_attack",
    "temporal_momentum",
    "temporal_step",
    "temporal_translation",
    "universal_attack",
    "universal_step",
]
