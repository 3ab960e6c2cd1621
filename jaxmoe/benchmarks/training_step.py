"""A J-TLAT step against the gradient evaluations that it needs, each jitted alone."""

import jax
import jax.numpy as jnp

from jaxmoe.attacks import AttackSettings, expert_loss, model_loss, router_loss
from jaxmoe.benchmarks.row import Row
from jaxmoe.benchmarks.subjects import clips, even_mixture, scale
from jaxmoe.benchmarks.timing import compare
from jaxmoe.mixture import choose
from jaxmoe.threat import ThreatModel
from jaxmoe.training import (
    RECIPES,
    Batch,
    Found,
    RecipeOptions,
    adamw,
    init_state,
    make_train_step,
)

STEPS = 5
BAR = 1.15


def run() -> list[Row]:
    """One row: three phases of inner attacks, losses and updates."""
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
            RECIPES["j_tlat"],
            options,
            threat,
            optimizer,
            lambda _: jnp.float32(1e-3),
            lambda _: jnp.float32(8 / 255),
        )
    )
    routing = choose(mixture.route(params, x), options.weak_experts, "renormalized")
    # One objective for each phase's attack, as the phases make them.
    objectives = {
        "router": lambda p, x: router_loss(
            mixture, p, x, lam=settings.lam, gamma1=settings.gamma1, settings=settings
        ),
        "weak_experts": lambda p, x: expert_loss(
            mixture, p, x, y, routing, lam=settings.lam, settings=settings
        ),
        "global": lambda p, x: _sum(
            model_loss(mixture, settings, p, x, y),
            router_loss(mixture, p, x, lam=settings.lam, gamma1=settings.gamma1, settings=settings),
        ),
    }
    sides = {"J-TLAT step": lambda: step(state, batch, jax.random.key(1))}
    x_adv = threat.random_start(jax.random.key(2), x)
    for phase in RECIPES["j_tlat"](mixture, threat, options):
        attack_gradient = jax.jit(_attack_gradient(objectives[phase.name]))
        loss_gradient = jax.jit(_loss_gradient(phase))
        sides[f"{STEPS} input gradients, {phase.name}"] = lambda f=attack_gradient: [
            f(params, x, x_adv) for _ in range(STEPS)
        ]
        moving = {part: params[part] for part in phase.moves}
        sides[f"params' gradient, {phase.name}"] = lambda f=loss_gradient, m=moving: f(
            m, params, x, y, x_adv, routing
        )
    return [
        compare(
            "J-TLAT step / the gradients that it needs",
            BAR,
            sides,
            f"top-1 of 4, {len(y)} clips 8x32x32, {STEPS} steps in each of three phases",
        )
    ]


def _sum(first, second):
    return lambda x_adv: first(x_adv) + second(x_adv)


def _attack_gradient(objective):
    def gradient(params, x, x_adv):
        return jax.grad(lambda x_adv: jnp.sum(objective(params, x)(x_adv)))(x_adv)

    return gradient


def _loss_gradient(phase):
    def gradient(moving, params, x, y, x_adv, routing):
        found = Found(x_adv, routing=routing)
        return jax.grad(lambda m: jnp.mean(phase.loss({**params, **m}, x, y, found)))(moving)

    return gradient
