"""Attacks that make an attempt for each expert, or for each target, and keep what worked.

Example by example the attempt that broke the model is kept, or else the one of the greatest loss.
Every attempt has `settings.restarts` random starts; gradients and traces are those of all of them.
Constructors of attacks on a mixture's parts raise a ValueError for a model that is no mixture.

Axes: B = batch, M = experts, k = chosen experts, K = classes, N = targets.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmoe.attacks.attack import Attack, Model, as_apply, constant_step, temporal_step
from jaxmoe.attacks.auto_pgd import maximize
from jaxmoe.attacks.component_attacks import check_mixture, expert_loss, frozen_routing, router_loss
from jaxmoe.attacks.gradient_attacks import model_loss
from jaxmoe.attacks.objectives import cross_entropy, is_right, likeliest_targets
from jaxmoe.attacks.perturb import AttackResult, numbered_keys, perturb, strongest_attempt
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.mixture import Mixture, no_head
from jaxmoe.threat import ThreatModel, per_example_keys

Climb = Callable[
    [Key[Array, " batch"], Int[Array, "*batch"]], tuple[AttackResult, Bool[Array, " batch"]]
]
"""`(keys, target) -> (result, whether the model failed on it)`: one attempt from one start."""


def pgd_each_e(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """PGD-each-E: constant steps on CE(E_j(x'), y) of one expert j, for every j. M attempts.

    It is the attack on the experts with the route fixed to j, whatever the router says.
    """
    check_mixture(mixture)

    def plan(params, x, y):
        del x

        def objective(expert):
            return lambda x_adv: cross_entropy(mixture.expert(params, x_adv, expert), y)

        return jnp.arange(mixture.num_experts), objective

    return _one_by_one(mixture, threat, settings, constant_step, plan)


def enumerated_route(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """Enumerated route: Auto-PGD on CE(E_j(x'), y) − CE(r(x'), j), for every expert j. M attempts.

    The route is driven to j, and j broken: for k = 1 the mixture is wrong where argmax r(x') = j
    and E_j(x') is. For k > 1 the other chosen experts may save it, or break it before, and so may a
    head: there every iterate is tried on F. An attempt takes `settings.steps` + 1 gradients.
    """
    check_mixture(mixture)

    def attack(key, params, x, y):
        def climb(keys, expert):
            def look(x_adv):
                router = mixture.route(params, x_adv)
                logits = mixture.expert(params, x_adv, expert)
                loss = cross_entropy(logits, y)
                loss -= cross_entropy(router, jnp.broadcast_to(expert, router.shape[:-1]))
                if mixture.top_k > 1 or mixture.head is not no_head:
                    return loss, is_right(mixture.apply(params, x_adv), y)
                elsewhere = jnp.argmax(router, axis=-1) != expert
                return loss, elsewhere | is_right(logits, y)

            return maximize(keys, x, look, threat, settings.steps)

        return over_attempts(key, x, climb, jnp.arange(mixture.num_experts), settings.restarts)

    return attack


def pgd_t(model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()) -> Attack:
    """PGD-T: constant steps on −CE(F, t) for each of the `settings.targets` likeliest wrong t.

    There are K − 1 targets at most, here and below.
    """

    def plan(params, x, y):
        apply = as_apply(model, settings)

        def objective(target):
            return lambda x_adv: _toward(apply(params, x_adv), target)

        targets = likeliest_targets(apply(params, x), y, settings.targets, settings.first_target)
        return targets, objective

    return _one_by_one(model, threat, settings, constant_step, plan)


def pgd_r_t(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """PGD-R-T: constant steps on −CE(r(x'), j), toward each expert j but the clean first choice.

    M − 1 attempts, from the most trusted of the others to the least.

    Raises:
      ValueError: a mixture of one expert, or a model that is no mixture.
    """
    check_mixture(mixture)
    if mixture.num_experts < 2:
        raise ValueError("attack: pgd-r-t needs a second expert to route to; mixture.experts is 1")

    def plan(params, x, y):
        del y

        def objective(expert):
            return lambda x_adv: _toward(mixture.route(params, x_adv), expert)

        clean = mixture.route(params, x)
        others = likeliest_targets(clean, jnp.argmax(clean, axis=-1), mixture.num_experts - 1)
        return others, objective

    return _one_by_one(mixture, threat, settings, constant_step, plan)


def pgd_e_t(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """PGD-E-T: constant steps on −Σ_i w_i CE(E_i(x'), t), routing frozen, toward each target t.

    Experts and weights are those of `expert_loss`, targets the likeliest wrong classes of F(x).
    """
    check_mixture(mixture)

    def plan(params, x, y):
        routing = frozen_routing(mixture, params, x)

        def objective(target):
            away = expert_loss(mixture, params, x, target, routing, lam=0.0, settings=settings)
            return lambda x_adv: -away(x_adv)

        logits = mixture.apply(params, x)
        return likeliest_targets(logits, y, settings.targets, settings.first_target), objective

    return _one_by_one(mixture, threat, settings, constant_step, plan)


def j_tlga_t(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """J-TLGA-T: J-TLGA with −CE(F, t) in place of CE(F, y), toward each target t.

    That is temporal steps on −CE(F, t) + λ L_Lip(F) + γ2 ℓ*_R.
    """
    check_mixture(mixture)

    def plan(params, x, y):
        router = router_loss(
            mixture, params, x, lam=settings.lam, gamma1=settings.gamma1, settings=settings
        )

        def objective(target):
            whole = model_loss(mixture, settings, params, x, target, classification=_toward)
            return lambda x_adv: whole(x_adv) + settings.gamma2 * router(x_adv)

        logits = mixture.apply(params, x)
        return likeliest_targets(logits, y, settings.targets, settings.first_target), objective

    return _one_by_one(mixture, threat, settings, temporal_step, plan)


def over_attempts(
    key: Key[Array, "*batch"],
    x: Float[Array, "batch ..."],
    climb: Climb,
    targets: Int[Array, "targets ..."],
    restarts: int,
) -> AttackResult:
    """The strongest of N · `restarts` attempts, example by example (`strongest_attempt`).

    Args:
      key: as for `perturb`; every attempt folds its number in.
      x: clean inputs.
      climb: makes one attempt at one of `targets`.
      targets: experts or classes, the same for all examples [N] or each its own [N, B, …].
      restarts: attempts at each target, ≥ 1.
    """
    keys = per_example_keys(key, x.shape[0])

    def attempt(number):
        return climb(numbered_keys(keys, number), targets[number // restarts])

    return strongest_attempt(attempt, targets.shape[0] * restarts)


def _one_by_one(model: Model, threat: ThreatModel, settings: AttackSettings, step, plan) -> Attack:
    """The loop of `perturb` for each target; an attempt succeeded where the hard F is wrong.

    `plan(params, x, y) -> (targets [N, …], target -> objective)`.
    """
    hard = as_apply(model, dataclasses.replace(settings, gradient="hard"))

    def attack(key, params, x, y):
        targets, objective = plan(params, x, y)

        def climb(keys, target):
            update = step(threat, settings)
            result = perturb(keys, x, objective(target), threat, update, steps=settings.steps)
            return result, ~is_right(hard(params, result.x_adv), y)

        return over_attempts(key, x, climb, targets, settings.restarts)

    return attack


def _toward(logits: Array, target: Array) -> Float[Array, " batch"]:
    return -cross_entropy(logits, target)
