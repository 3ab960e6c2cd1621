"""Attacks on a whole classifier, mixture or not: FGSM, PGD, MI-FGSM, standing PGD and TLA-M."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmoe.attacks.attack import (
    Attack,
    Model,
    as_apply,
    constant_step,
    gradients_per_step,
    loss_of_logits,
    temporal_step,
)
from jaxmoe.attacks.objectives import (
    cross_entropy,
    lipschitz_quotient,
    mean_over_labelled,
    standing_cross_entropy,
)
from jaxmoe.attacks.perturb import Objective, perturb
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.attacks.updates import momentum, steepest_step
from jaxmoe.models.precision import unit_roundoff, with_exact_products
from jaxmoe.threat import ThreatModel


def fgsm(model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()) -> Attack:
    """FGSM: one step of length ε on CE(F), from the clean input (Goodfellow et al. 2015)."""
    step = steepest_step(threat.norm, threat.epsilon)
    loop = {**settings.loop, "steps": 1, "restarts": 1, "random_start": False}
    return _cross_entropy_attack(model, threat, settings, step, **loop)


def pgd(model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()) -> Attack:
    """PGD: steps of α ε on CE(F), from a random start (Madry et al. 2018)."""
    step = constant_step(threat, settings)
    return _cross_entropy_attack(model, threat, settings, step, **settings.loop)


def pgd_standing(
    model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """PGD on the CE of those pixels alone that are still right, for dense predictions.

    What it keeps, and calls its loss, is the iterate with the largest share of wrong pixels.
    Reference: Croce et al. 2024, masked cross-entropy (https://arxiv.org/abs/2306.12941).
    """

    def loss(logits, labels):
        standing = standing_cross_entropy(logits, labels)
        wrong = jnp.argmax(logits, axis=-1).astype(labels.dtype) != labels
        wrong = wrong.astype(logits.dtype)
        # Its value is the share, its gradient that of the cross-entropy.
        return jax.lax.stop_gradient(mean_over_labelled(wrong, labels) - standing) + standing

    return _cross_entropy_attack(
        model,
        threat,
        settings,
        constant_step(threat, settings),
        loss=loss,
        steps=settings.steps,
        restarts=settings.restarts,
    )


def mi_fgsm(
    model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """MI-FGSM: PGD with momentum of ℓ1-normalised gradients, from the clean input.

    Reference: Dong et al. 2018 (https://arxiv.org/abs/1710.06081).
    """
    step = optax.chain(momentum(settings.decay), constant_step(threat, settings))
    loop = {**settings.loop, "restarts": 1, "random_start": False}
    return _cross_entropy_attack(model, threat, settings, step, **loop)


def tla_m(model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()) -> Attack:
    """TLA-M: temporal steps on ℓ_MoE = CE(F) + λ L_Lip(F).

    Reference: TLGA, ICLR 2026 (https://arxiv.org/abs/2602.01369).
    """

    def attack(key, params, x, y):
        loss = model_loss(model, settings, params, x, y)
        return perturb(key, x, loss, threat, temporal_step(threat, settings), **settings.loop)

    return attack


def model_loss(
    model: Model, settings: AttackSettings, params, x, y, *, classification=cross_entropy
) -> Objective:
    """ℓ_MoE(x') = CE(F(x'), y) + λ L_Lip(F), as an objective.

    `classification(logits, y) -> [B]` may take the CE's place.
    """
    apply = with_exact_products(as_apply(model, settings))
    clean, roundoff = apply(params, x), unit_roundoff(apply, params, x)

    def loss(x_adv):
        logits = apply(params, x_adv)
        quotient = _quotient(logits, clean, x_adv, x, roundoff, settings)
        return classification(logits, y) + settings.lam * quotient

    return loss


def model_loss_of_pair(
    model: Model,
    settings: AttackSettings,
    params,
    x,
    y,
    x_adv,
    *,
    classification=cross_entropy,
) -> Float[Array, " batch"]:
    """ℓ_MoE(x') with x and x' in one batch, for a gradient in `params`.

    Both have such a gradient, and in two batches the experts would be two programs, forward and
    backward: a training step takes long enough to compile.
    """
    apply = with_exact_products(as_apply(model, settings))
    roundoff = unit_roundoff(apply, params, x)
    clean, logits = jnp.split(apply(params, jnp.concatenate([x, x_adv])), 2)
    quotient = _quotient(logits, clean, x_adv, x, roundoff, settings)
    return classification(logits, y) + settings.lam * quotient


def _quotient(logits, clean, x_adv, x, roundoff: float, settings: AttackSettings) -> Array:
    stop = settings.stop_denominator
    return lipschitz_quotient(logits, clean, x_adv, x, roundoff=roundoff, stop_denominator=stop)


def _cross_entropy_attack(model, threat, settings, step, *, loss=cross_entropy, **loop) -> Attack:
    """Maximises CE(F(x'), y), or another `loss` of logits, by `step`; `loop` goes to `perturb`."""

    def attack(key, params, x, y):
        objective = loss_of_logits(model, settings, params, lambda logits: loss(logits, y))
        result = perturb(key, x, objective, threat, step, **loop)
        return result._replace(gradients=result.gradients * gradients_per_step(model, settings))

    return attack
