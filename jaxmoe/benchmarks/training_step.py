"""A J-TLAT step against the gradient evaluations that it needs, each jitted alone."""

import jax
import jax.numpy as jnp

from jaxmoe.attacks import AttackSettings, expert_loss, model_loss, router_loss
from jaxmoe.benchmarks.row import Row, counted
from jaxmoe.benchmarks.subjects import clips, even_mixture, scale
from jaxmoe.benchmarks.timing import compare
from jaxmoe.mixture import choose
from jaxmoe.runs.plan.count import forward_flops
from jaxmoe.threat import ThreatModel
from jaxmoe.training import Batch, Found, RecipeOptions, adamw, init_state, make_train_step
from jaxmoe.training.recipes import j_tlat

STEPS = 5
BAR = 1.1


def run() -> list[Row]:
    """Two rows, time and operations: three phases of inner attacks, losses and updates."""
    mixture, _, _ = even_mixture(4)
    x, y = clips(16 * scale(), 8, 32)
    clip = jnp.asarray(x * 255, jnp.uint8)
    batch = Batch(clip, y, jnp.arange(len(y), dtype=jnp.int32))
    settings = AttackSettings(steps=STEPS)
    options, threat = RecipeOptions(attack=settings), ThreatModel()
    params = mixture.init(jax.random.key(0), x[:1])
    optimizer = adamw(1e-2, 1.0)
    state = init_state(params, optimizer)
    step = jax.jit(
        make_train_step(
            mixture,
            j_tlat,
            options,
            threat,
            optimizer,
            lambda _: jnp.float32(1e-3),
            lambda _: jnp.float32(8 / 255),
        )
    )
    routing = choose(mixture.route(params, x), options.weak_experts, "renormalized")
    # One objective for each phase's attack, as the phases make them: clean outputs computed once.
    quotients = {"lam": settings.lam, "settings": settings}
    router = router_loss(mixture, params, x, gamma1=settings.gamma1, **quotients)
    whole = model_loss(mixture, settings, params, x, y)
    objectives = {
        "router": router,
        "weak_experts": expert_loss(mixture, params, x, y, routing, **quotients),
        "global": lambda x_adv: whole(x_adv) + settings.gamma2 * router(x_adv),
    }
    sides = {"J-TLAT step": lambda: step(state, batch, jax.random.key(1))}
    x_adv = threat.random_start(jax.random.key(2), x)
    for phase in j_tlat(mixture, threat, options):
        attack_gradient = jax.jit(_attack_gradient(objectives[phase.name]))
        loss_gradient = jax.jit(_loss_gradient(phase))
        sides[f"{STEPS} input gradients, {phase.name}"] = lambda f=attack_gradient: [
            f(x_adv) for _ in range(STEPS)
        ]
        moving = {part: params[part] for part in phase.moves}
        sides[f"params' gradient, {phase.name}"] = lambda f=loss_gradient, m=moving: f(
            m, params, x, y, x_adv, routing
        )
    name = "J-TLAT step / the gradients that it needs"
    detail = f"top-1 of 4, {len(y)} clips 8x32x32, {STEPS} steps in each of three phases"
    whole_step, *gradients = (forward_flops(side) for side in sides.values())
    return [
        compare(name, BAR, sides, detail),
        counted(f"{name}, operations", whole_step / sum(gradients), BAR, detail),
    ]


def _attack_gradient(objective):
    return jax.grad(lambda x_adv: jnp.sum(objective(x_adv)))


def _loss_gradient(phase):
    def gradient(moving, params, x, y, x_adv, routing):
        found = Found(x_adv, routing=routing)
        return jax.grad(lambda m: jnp.mean(phase.loss({**params, **m}, x, y, found)))(moving)

    return gradient
