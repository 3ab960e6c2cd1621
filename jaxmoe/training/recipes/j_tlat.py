"""J-TLAT: repair the router, then the weak experts, then the whole.

Reference: TLGA and J-TLAT, ICLR 2026 (https://arxiv.org/abs/2602.01369), algorithm of J-TLAT.
"""

import jax
import jax.numpy as jnp

from jaxmoe.attacks import expert_loss, expert_loss_of_pair, perturb, router_loss, temporal_step
from jaxmoe.mixture import Mixture, choose, mean_over_classes
from jaxmoe.threat import ThreatModel
from jaxmoe.training.losses import label_loss
from jaxmoe.training.phase import Found, Phase, RecipeOptions
from jaxmoe.training.recipes.adversarial import end_to_end, inner_attack


def j_tlat(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """The three phases, or those of them that `options.repairs` names, in this order."""
    attack = options.global_attack
    phases = {
        "router": router_phase(mixture, threat, options),
        "weak_experts": weak_experts_phase(mixture, threat, options),
        "global": end_to_end("global", attack, "lipschitz", mixture, threat, options),
    }
    return tuple(phase for name, phase in phases.items() if name in options.repairs)


def router_phase(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> Phase:
    """Minimises ℓ_R = CE(r(x'), y_R) + λ L_Lip(r) over the router, x' from TLGA-R by default.

    One expert for every clip minimises it, so a balance loss belongs beside it. Against Switch's of
    weight w the collapsed router rests where its expert's weight is 1 / (M w): at w = 0.5 half of
    all; above w = 1 nowhere, since no most trusted of M experts has less than 1 / M.
    """

    def loss(params, x, y, found):
        del y
        objective = router_loss(
            mixture, params, x, lam=options.lam, gamma1=0.0, settings=options.attack
        )
        return objective(found.x_adv)

    attack = inner_attack(options.router_attack, mixture, threat, options)
    return Phase("router", attack, loss, frozenset({"router"}))


def weak_experts_phase(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> Phase:
    """Repairs the experts that an attacked router falls back on.

    I = the `weak_experts` most trusted of a(x + δ_R); δ maximises, and the update minimises,
    `Σ_{i∈I} w_i [CE(E_i(x'), y) + λ L_Lip(E_i)]`. δ_R is that of the phase before; where this phase
    is the first of its step, it attacks the router itself.
    """
    attack_router = inner_attack(options.router_attack, mixture, threat, options)
    classify = label_loss(options)

    def attack(keys, params, x, y, previous):
        keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        router_found = previous or attack_router(keys[0], params, x, y, None)
        logits = mean_over_classes(mixture.route(params, router_found.x_adv))
        routing = choose(logits, options.weak_experts, "renormalized")
        settings = options.inner
        loss = expert_loss(mixture, params, x, y, routing, lam=settings.lam, settings=settings)
        step = temporal_step(threat, settings)
        result = perturb(keys[1], x, loss, threat, step, **settings.loop)
        finite = jnp.all(result.finite) & router_found.finite
        return Found(result.x_adv, finite, jax.lax.stop_gradient(routing))

    def loss(params, x, y, found):
        numbers = {"lam": options.lam, "settings": options.attack, "classification": classify}
        return expert_loss_of_pair(mixture, params, x, y, found.routing, found.x_adv, **numbers)

    return Phase("weak_experts", attack, loss, frozenset({"experts"}))
