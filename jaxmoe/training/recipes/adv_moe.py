"""AdvMoE: experts and router in turn, each made robust by a divergence of its own.

Reference: Zhang et al. 2023, "Robust Mixture-of-Expert Training for Convolutional Neural Networks"
(https://arxiv.org/abs/2308.10110).
"""

import jax.numpy as jnp

from jaxmoe.attacks import as_apply, constant_step, cross_entropy, kl_divergence, perturb
from jaxmoe.choices import DIVERGENCE
from jaxmoe.mixture import Mixture, mean_over_classes
from jaxmoe.threat import ThreatModel
from jaxmoe.training.losses import label_loss
from jaxmoe.training.phase import Found, Phase, PhaseAttack, RecipeOptions
from jaxmoe.training.recipes.adversarial import inner_attack


def adv_moe(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """The two phases, in order: experts, then router.

    Experts: CE(F(x), y) + β KL(F(x) ‖ F(x')). Router: CE(r(x), y_R) + β KL(r(x) ‖ r(x')), y_R being
    the expert that it trusts most on x. Each has an x' of its own, which maximises the sum of both
    divergences, or what `options.inner_attack` names.
    """

    def route(params, x):
        return mean_over_classes(mixture.route(params, x))

    def experts_loss(params, x, y, found):
        clean, attacked = mixture.apply(params, x), mixture.apply(params, found.x_adv)
        return classify(clean, y) + options.beta * kl_divergence(clean, attacked)

    def router_loss(params, x, y, found):
        del y
        clean, attacked = route(params, x), route(params, found.x_adv)
        kept = cross_entropy(clean, jnp.argmax(clean, axis=-1))
        return kept + options.beta * kl_divergence(clean, attacked)

    name, classify = options.inner_attack or DIVERGENCE, label_loss(options)
    if name == DIVERGENCE:
        attack = _attack(mixture, route, threat, options)
    else:
        attack = inner_attack(name, mixture, threat, options)
    return (
        Phase("experts", attack, experts_loss, frozenset({"experts"})),
        Phase("router", attack, router_loss, frozenset({"router"})),
    )


def _attack(mixture: Mixture, route, threat: ThreatModel, options: RecipeOptions) -> PhaseAttack:
    """PGD on KL(F(x) ‖ F(x')) + KL(r(x) ‖ r(x'))."""
    settings = options.inner
    apply = as_apply(mixture, settings)

    def attack(keys, params, x, y, previous):
        del y, previous
        clean, clean_route = apply(params, x), route(params, x)

        def divergences(x_adv):
            whole = kl_divergence(clean, apply(params, x_adv))
            return whole + kl_divergence(clean_route, route(params, x_adv))

        step = constant_step(threat, settings)
        result = perturb(keys, x, divergences, threat, step, **settings.loop)
        return Found(result.x_adv, jnp.all(result.finite))

    return attack
