"""Attacks on a part of a mixture: the router, the experts, or both at once.

All are scored by the accuracy of the hard mixture F at what they return, whatever they attacked.
Their constructors raise a ValueError for a model that is no mixture.
Source of all: TLGA, ICLR 2026 (https://arxiv.org/abs/2602.01369).

Axes: B = batch, M = experts, k = chosen experts.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoe.attacks.attack import Attack, constant_step, temporal_step
from jaxmoe.attacks.gradient_attacks import model_loss
from jaxmoe.attacks.objectives import cross_entropy, lipschitz_quotient, router_output
from jaxmoe.attacks.perturb import Objective, perturb
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.mixture import Mixture, Routing, choose, mean_over_classes
from jaxmoe.models.precision import unit_roundoff, with_exact_products
from jaxmoe.threat import ThreatModel


def pgd_r(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """PGD-R: constant steps on CE(r(x'), argmax r(x)), away from the clean route."""
    return _router_attack(mixture, threat, settings, constant_step, lam=0.0, gamma1=0.0)


def tla_r(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """TLA-R: temporal steps on ℓ_R = CE(r(x'), y_R) + λ L_Lip(r)."""
    return _router_attack(mixture, threat, settings, temporal_step, lam=settings.lam, gamma1=0.0)


def tlga_r(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """TLGA-R: temporal steps on ℓ*_R = ℓ_R − γ1 CE(r(x'), ŷ_R), toward the least trusted expert."""
    return _router_attack(
        mixture, threat, settings, temporal_step, lam=settings.lam, gamma1=settings.gamma1
    )


def pgd_e(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """PGD-E: constant steps on the chosen experts' CE, routing frozen at the clean choice."""
    return _expert_attack(mixture, threat, settings, constant_step, lam=0.0)


def tla_e(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """TLA-E: temporal steps on the chosen experts' CE + λ L_Lip(E_i), routing frozen."""
    return _expert_attack(mixture, threat, settings, temporal_step, lam=settings.lam)


def j_tla(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """J-TLA: temporal steps on ℓ_MoE + γ2 ℓ_R, the whole and the router at once."""
    return _joint_attack(mixture, threat, settings, gamma1=0.0)


def j_tlga(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """J-TLGA: temporal steps on ℓ*_MoE = ℓ_MoE + γ2 ℓ*_R."""
    return _joint_attack(mixture, threat, settings, gamma1=settings.gamma1)


def router_loss(
    mixture: Mixture, params, x: Array, *, lam, gamma1, settings: AttackSettings
) -> Objective:
    """ℓ*_R(x') = CE(r(x'), y_R) + λ L_Lip(r) − γ1 CE(r(x'), ŷ_R), as an objective.

    y_R is the expert that the router trusts most on the clean `x`, ŷ_R the one it trusts least.
    """
    unused = _is_zero(lam)
    route = mixture.route if unused else with_exact_products(mixture.route)
    clean = route(params, x)
    roundoff = None if unused else unit_roundoff(route, params, x)
    most_trusted = jnp.argmax(clean, axis=-1)
    least_trusted = jnp.argmin(clean, axis=-1)

    def loss(x_adv):
        logits = route(params, x_adv)
        away = cross_entropy(logits, most_trusted)
        guidance = gamma1 * cross_entropy(logits, least_trusted)
        if unused:
            return away - guidance
        quotient = lipschitz_quotient(
            router_output(logits, settings.router_output),
            router_output(clean, settings.router_output),
            x_adv,
            x,
            roundoff=roundoff,
            stop_denominator=settings.stop_denominator,
        )
        return away + lam * quotient - guidance

    return loss


def expert_loss(
    mixture: Mixture,
    params,
    x: Array,
    y: Array,
    routing: Routing,
    *,
    lam,
    settings: AttackSettings,
    classification: Callable = cross_entropy,
) -> Objective:
    """`Σ_i w_i [CE(E_i(x'), y) + λ L_Lip(E_i)]` over the experts of a frozen `routing`.

    w are the routing's weights, renormalised over its experts, without a gradient.
    """
    if _is_zero(lam):
        weights = _shares(routing)
        classify = jax.vmap(lambda logits: classification(logits, y), in_axes=1, out_axes=1)
        select = mixture.select
        return lambda x_adv: jnp.sum(
            weights * classify(select(params, x_adv, routing.experts)), axis=-1
        )
    select = with_exact_products(mixture.select)
    clean = select(params, x, routing.experts)
    total = _expert_losses(mixture, params, x, y, routing, lam, settings, classification)
    return lambda x_adv: total(select(params, x_adv, routing.experts), clean, x_adv)


def expert_loss_of_pair(
    mixture: Mixture,
    params,
    x: Array,
    y: Array,
    routing: Routing,
    x_adv: Array,
    *,
    lam,
    settings: AttackSettings,
    classification: Callable = cross_entropy,
) -> Float[Array, " batch"]:
    """`expert_loss` at x' with x and x' in one dispatch, for a gradient in `params`.

    As `model_loss_of_pair`: in two dispatches the experts would be two programs.
    """
    numbers = {"lam": lam, "settings": settings, "classification": classification}
    if _is_zero(lam):
        return expert_loss(mixture, params, x, y, routing, **numbers)(x_adv)
    select = with_exact_products(mixture.select)
    both, chosen = jnp.concatenate([x, x_adv]), jnp.concatenate([routing.experts] * 2)
    clean, logits = jnp.split(select(params, both, chosen), 2)
    total = _expert_losses(mixture, params, x, y, routing, lam, settings, classification)
    return total(logits, clean, x_adv)


def _expert_losses(mixture, params, x, y, routing, lam, settings, classification) -> Callable:
    """`(logits [B, k, K], clean logits, x') -> [B]`, the sum over the chosen experts."""
    weights = _shares(routing)
    roundoff = unit_roundoff(with_exact_products(mixture.select), params, x, routing.experts)

    def one_expert(logits, clean, x_adv) -> Float[Array, " batch"]:
        quotient = lipschitz_quotient(
            logits,
            clean,
            x_adv,
            x,
            roundoff=roundoff,
            stop_denominator=settings.stop_denominator,
        )
        return classification(logits, y) + lam * quotient

    def total(logits, clean, x_adv):
        losses = jax.vmap(one_expert, in_axes=(1, 1, None), out_axes=1)(logits, clean, x_adv)
        return jnp.sum(weights * losses, axis=-1)

    return total


def _shares(routing: Routing) -> Float[Array, "batch k"]:
    """The weights of the chosen experts, of sum 1 and without a gradient."""
    total = jnp.sum(routing.weights, axis=-1, keepdims=True)
    return jax.lax.stop_gradient(routing.weights / total)


def frozen_routing(mixture: Mixture, params, x: Array) -> Routing:
    """The clean choice of experts, by mean weights where a gate weighs every class by itself."""
    logits = mean_over_classes(mixture.route(params, x))
    return choose(logits, mixture.top_k, mixture.combine)


def check_mixture(model) -> None:
    """Raises a ValueError for a model that is no mixture: it has no parts to attack."""
    if not isinstance(model, Mixture):
        raise ValueError(
            "attack: attacks on routers, experts or both need a Mixture; other models have no such "
            "parts"
        )


def _router_attack(mixture, threat, settings, step, *, lam, gamma1) -> Attack:
    check_mixture(mixture)

    def attack(key, params, x, y):
        del y
        loss = router_loss(mixture, params, x, lam=lam, gamma1=gamma1, settings=settings)
        return perturb(key, x, loss, threat, step(threat, settings), **settings.loop)

    return attack


def _expert_attack(mixture, threat, settings, step, *, lam) -> Attack:
    check_mixture(mixture)

    def attack(key, params, x, y):
        routing = frozen_routing(mixture, params, x)
        loss = expert_loss(mixture, params, x, y, routing, lam=lam, settings=settings)
        return perturb(key, x, loss, threat, step(threat, settings), **settings.loop)

    return attack


def _joint_attack(mixture, threat, settings, *, gamma1) -> Attack:
    check_mixture(mixture)

    def attack(key, params, x, y):
        whole = model_loss(mixture, settings, params, x, y)
        router = router_loss(mixture, params, x, lam=settings.lam, gamma1=gamma1, settings=settings)

        def loss(x_adv):
            return whole(x_adv) + settings.gamma2 * router(x_adv)

        return perturb(key, x, loss, threat, temporal_step(threat, settings), **settings.loop)

    return attack


def _is_zero(lam) -> bool:
    """Whether a loss has no quotient, which is then neither computed nor asks for precision."""
    return isinstance(lam, int | float) and lam == 0
