"""End-to-end adversarial training of the mixture: AT-M with PGD, TLAT with TLA-M."""

import dataclasses

import jax.numpy as jnp

from jaxmoe.attacks import build_attack, cross_entropy, model_loss
from jaxmoe.mixture import Mixture
from jaxmoe.threat import ThreatModel
from jaxmoe.training.phase import Found, Phase, PhaseAttack, PhaseLoss, RecipeOptions


def at_m(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """AT-M: CE(F(x'), y) with x' from PGD (Madry et al. 2018), everything moves."""

    def loss(params, x, y, found):
        del x
        return cross_entropy(mixture.apply(params, found.x_adv), y)

    return (Phase("adversarial", inner_attack("pgd", mixture, threat, options), loss),)


def tlat(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """TLAT: CE(F(x'), y) + λ L_Lip(F) with x' from TLA-M, everything moves.

    It is J-TLAT's third phase alone, with TLA-M in place of J-TLGA.
    Reference: TLGA, ICLR 2026 (https://arxiv.org/abs/2602.01369).
    """
    return (global_phase("tla-m", mixture, threat, options),)


def global_phase(
    attack: str, mixture: Mixture, threat: ThreatModel, options: RecipeOptions
) -> Phase:
    """Minimises ℓ_MoE = CE(F(x'), y) + λ L_Lip(F) over everything, x' from the named attack."""
    return Phase(
        "global", inner_attack(attack, mixture, threat, options), _model_loss(mixture, options)
    )


def inner_attack(
    name: str, mixture: Mixture, threat: ThreatModel, options: RecipeOptions
) -> PhaseAttack:
    """The named attack as the attack of a phase."""
    attack = build_attack(name, mixture, threat, options.attack)

    def run(keys, params, x, y, previous):
        del previous
        result = attack(keys, params, x, y)
        return Found(result.x_adv, jnp.all(result.finite))

    return run


def _model_loss(mixture: Mixture, options: RecipeOptions) -> PhaseLoss:
    # The formula that the attack maximises, with the defence's λ and the true gradient: what an
    # attack sees of the mixture is the adversary's choice.
    settings = dataclasses.replace(options.attack, lam=options.lam, gradient="hard")

    def loss(params, x, y, found):
        return model_loss(mixture, settings, params, x, y)(found.x_adv)

    return loss
