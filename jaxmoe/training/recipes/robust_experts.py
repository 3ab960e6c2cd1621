"""RT-ER and JTDMoE: robust experts, and a dual model whose two mixtures train together.

Reference: ICML 2025, "Optimizing Robustness and Accuracy in Mixture of Experts: A Dual-Model
Approach" (https://arxiv.org/abs/2502.06832).

Axes: B = batch, M = experts.
"""

import jax
import jax.numpy as jnp

from jaxmoe.attacks import constant_step, expert_loss, kl_divergence, perturb
from jaxmoe.mixture import Mixture, Routing, choose, mean_over_classes, robust_part
from jaxmoe.threat import ThreatModel
from jaxmoe.training.losses import label_loss
from jaxmoe.training.phase import PARTS, Found, Phase, RecipeOptions
from jaxmoe.training.recipes.adversarial import inner_attack


def rt_er(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """RT-ER: CE(F(x + δ), y) + β KL(p_{f2}(x) ‖ p_{f2}(x + δ2)), everything moves.

    f2 is the router's second choice on the clean x: under attack it may be the first. δ is PGD's on
    F, δ2 PGD's on the CE of f2 alone (as in the authors' code), or δ again where `expert_attack` is
    "shared" (as in their text).
    """

    def attack_second(keys, params, x, y):
        routing = second_choice(mixture, params, x)
        return _attack_experts(mixture, threat, options, keys, params, x, y, routing), routing

    def attack(keys, params, x, y, previous):
        keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        found = attack_model(keys[0], params, x, y, previous)
        if options.expert_attack == "shared":
            routing = second_choice(mixture, params, x)
            return found._replace(routing=routing, x_experts=found.x_adv)
        result, routing = attack_second(keys[1], params, x, y)
        finite = found.finite & jnp.all(result.finite)
        return Found(found.x_adv, finite, routing, result.x_adv)

    def loss(params, x, y, found):
        second = found.routing.experts
        clean = mixture.select(params, x, second)[:, 0]
        attacked = mixture.select(params, found.x_experts, second)[:, 0]
        robust = classify(mixture.apply(params, found.x_adv), y)
        return robust + options.beta * kl_divergence(clean, attacked)

    attack_model = inner_attack(options.inner_attack or "pgd", mixture, threat, options)
    classify = label_loss(options)
    return (Phase("rt_er", attack, loss),)


def jtdmoe(dual: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """JTDMoE of a dual model (`mixture.dual_mixture`): its robust mixture, then both together.

    Lower level, over F_R: CE(F_R(x + δ), y) + β Σ_i KL(p_{f_i}(x) ‖ p_{f_i}(x + δ_i)) with every
    expert of F_R, each with its own δ_i, or δ for all where `expert_attack` is "shared". Upper
    level: CE(F_D(x), y) on the clean x, over both mixtures, or F_S alone where `upper_moves` is
    "standard" (as in the authors' code). α stays.
    """
    robust = robust_part(dual)
    attack_model = inner_attack(options.inner_attack or "pgd", robust, threat, options)
    classify = label_loss(options)
    experts = jnp.arange(robust.num_experts)

    def attack(keys, params, x, y, previous):
        keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        found = attack_model(keys[0], params, x, y, previous)
        if options.expert_attack == "shared":
            return found._replace(x_experts=jnp.broadcast_to(found.x_adv, (len(experts), *x.shape)))

        def attack_expert(expert):
            index = jnp.full((x.shape[0], 1), expert)
            routing = Routing(index, jnp.ones(index.shape, x.dtype))
            own = jax.vmap(jax.random.fold_in, (0, None))(keys[1], expert)
            result = _attack_experts(robust, threat, options, own, params, x, y, routing)
            return result.x_adv, jnp.all(result.finite)

        x_experts, finite = jax.lax.map(attack_expert, experts)
        return Found(found.x_adv, found.finite & jnp.all(finite), x_experts=x_experts)

    def lower(params, x, y, found):
        def divergence(expert_and_input):
            expert, x_adv = expert_and_input
            clean = robust.expert(params, x, expert)
            return kl_divergence(clean, robust.expert(params, x_adv, expert))

        divergences = jnp.sum(jax.lax.map(divergence, (experts, found.x_experts)), axis=0)
        return classify(robust.apply(params, found.x_adv), y) + options.beta * divergences

    def upper(params, x, y, found):
        del found
        return classify(dual.apply(params, x), y)

    moves = {"both": PARTS | {"standard"}, "standard": frozenset({"standard"})}
    return (
        Phase("robust", attack, lower),
        Phase("dual", None, upper, moves[options.upper_moves]),
    )


def second_choice(mixture: Mixture, params, x) -> Routing:
    """Each clip's second most trusted expert, alone and with weight 1."""
    logits = mean_over_classes(mixture.route(params, x))
    experts = choose(logits, 2, mixture.combine).experts[:, 1:]
    return Routing(experts, jnp.ones(experts.shape, x.dtype))


def _attack_experts(mixture, threat, options, keys, params, x, y, routing):
    """PGD on the CE of the experts of a frozen routing."""
    settings = options.inner
    loss = expert_loss(mixture, params, x, y, routing, lam=0.0, settings=settings)
    step = constant_step(threat, settings)
    return perturb(keys, x, loss, threat, step, **settings.loop)
