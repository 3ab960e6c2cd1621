"""End-to-end adversarial training of the mixture: AT-M with PGD, TRADES, TLAT with TLA-M.

They are one recipe with other defaults: an attack on the whole, and a loss of what it finds.
"""

import dataclasses

import jax.numpy as jnp

from jaxmoe.attacks import (
    as_apply,
    build_attack,
    constant_step,
    kl_divergence,
    model_loss_of_pair,
    perturb,
)
from jaxmoe.choices import DIVERGENCE, AdversarialLoss
from jaxmoe.mixture import Mixture
from jaxmoe.threat import ThreatModel
from jaxmoe.training.losses import label_loss
from jaxmoe.training.phase import Found, Phase, PhaseAttack, PhaseLoss, RecipeOptions


def at_m(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """AT-M: CE(F(x'), y) with x' from PGD (Madry et al. 2018), everything moves."""
    return (end_to_end("adversarial", "pgd", "ce", mixture, threat, options),)


def trades(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """TRADES: CE(F(x), y) + β KL(F(x) ‖ F(x')), x' maximises the divergence, everything moves.

    Zhang et al. 2019, section 4, https://arxiv.org/abs/1901.08573.
    """
    return (end_to_end("trades", DIVERGENCE, "trades", mixture, threat, options),)


def tlat(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """TLAT: CE(F(x'), y) + λ L_Lip(F) with x' from TLA-M, everything moves.

    It is J-TLAT's third phase alone, with TLA-M in place of J-TLGA.
    Reference: TLGA, ICLR 2026 (https://arxiv.org/abs/2602.01369).
    """
    return (end_to_end("global", "tla-m", "lipschitz", mixture, threat, options),)


def end_to_end(
    name: str,
    attack: str,
    loss: AdversarialLoss,
    mixture: Mixture,
    threat: ThreatModel,
    options: RecipeOptions,
) -> Phase:
    """Returns the phase that moves everything, under an attack on the whole.

    Args:
      name: of the phase.
      attack: where `options.inner_attack` is None.
      loss: where `options.loss` is None.
      mixture: what is trained.
      threat: its threat model.
      options: the recipes' numbers.
    """
    run = inner_attack(options.inner_attack or attack, mixture, threat, options)
    return Phase(name, run, _losses(mixture, options)[options.loss or loss])


def inner_attack(
    name: str, mixture: Mixture, threat: ThreatModel, options: RecipeOptions
) -> PhaseAttack:
    """Returns the named attack, or `DIVERGENCE`, as the attack of a phase."""
    if name == DIVERGENCE:
        return _divergence_attack(mixture, threat, options)
    attack = build_attack(name, mixture, threat, options.inner)

    def run(keys, params, x, y, previous):
        del previous
        result = attack(keys, params, x, y)
        return Found(result.x_adv, jnp.all(result.finite))

    return run


def _divergence_attack(
    mixture: Mixture, threat: ThreatModel, options: RecipeOptions
) -> PhaseAttack:
    """PGD on KL(F(x) ‖ F(x'))."""
    settings = options.inner
    apply = as_apply(mixture, settings)

    def run(keys, params, x, y, previous):
        del y, previous
        clean = apply(params, x)
        result = perturb(
            keys,
            x,
            lambda x_adv: kl_divergence(clean, apply(params, x_adv)),
            threat,
            constant_step(threat, settings),
            **settings.loop,
        )
        return Found(result.x_adv, jnp.all(result.finite))

    return run


def _losses(mixture: Mixture, options: RecipeOptions) -> dict[AdversarialLoss, PhaseLoss]:
    classify = label_loss(options)
    # The formula that TLA-M maximises, with the defence's λ and the true gradient: what an attack
    # sees of the mixture is the adversary's choice.
    settings = dataclasses.replace(options.attack, lam=options.lam, gradient="hard")

    def ce(params, x, y, found):
        del x
        return classify(mixture.apply(params, found.x_adv), y)

    def half(params, x, y, found):
        clean, attacked = mixture.apply(params, x), mixture.apply(params, found.x_adv)
        return (classify(clean, y) + classify(attacked, y)) / 2

    def divergence(params, x, y, found):
        clean, attacked = mixture.apply(params, x), mixture.apply(params, found.x_adv)
        return classify(clean, y) + options.beta * kl_divergence(clean, attacked)

    def lipschitz(params, x, y, found):
        return model_loss_of_pair(
            mixture, settings, params, x, y, found.x_adv, classification=classify
        )

    return {"ce": ce, "half": half, "trades": divergence, "lipschitz": lipschitz}
