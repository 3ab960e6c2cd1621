"""End-to-end adversarial training of the mixture: AT-M with PGD, TRADES, TLAT with TLA-M."""

import dataclasses

import jax.numpy as jnp

from jaxmoe.attacks import (
    as_apply,
    build_attack,
    constant_step,
    cross_entropy,
    kl_divergence,
    model_loss_of_pair,
    perturb,
)
from jaxmoe.mixture import Mixture
from jaxmoe.threat import ThreatModel
from jaxmoe.training.phase import Found, Phase, PhaseAttack, PhaseLoss, RecipeOptions


def at_m(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """AT-M: CE(F(x'), y) with x' from PGD (Madry et al. 2018), everything moves."""

    def loss(params, x, y, found):
        del x
        return cross_entropy(mixture.apply(params, found.x_adv), y)

    return (Phase("adversarial", inner_attack("pgd", mixture, threat, options), loss),)


def trades(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """TRADES: CE(F(x), y) + β KL(F(x) ‖ F(x')), x' maximises the divergence, everything moves.

    Zhang et al. 2019, section 4, https://arxiv.org/abs/1901.08573.
    """
    settings = options.attack
    apply = as_apply(mixture, settings)

    def attack(keys, params, x, y, previous):
        del y, previous
        clean = apply(params, x)
        result = perturb(
            keys,
            x,
            lambda x_adv: kl_divergence(clean, apply(params, x_adv)),
            threat,
            constant_step(threat, settings),
            steps=settings.steps,
            restarts=settings.restarts,
        )
        return Found(result.x_adv, jnp.all(result.finite))

    def loss(params, x, y, found):
        clean, attacked = mixture.apply(params, x), mixture.apply(params, found.x_adv)
        return cross_entropy(clean, y) + options.beta * kl_divergence(clean, attacked)

    return (Phase("trades", attack, loss),)


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
        return model_loss_of_pair(mixture, settings, params, x, y, found.x_adv)

    return loss
