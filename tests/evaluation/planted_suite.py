"""Suites on planted models, and an attack that returns what it is told to."""

import jax.numpy as jnp
import planted
from planted import FAR, NEAR

from jaxmoe import attacks
from jaxmoe.attacks import AttackResult, AttackSettings
from jaxmoe.evaluation import evaluate_suite

EPSILON = 4 / 255
SETTINGS = AttackSettings(steps=6)
# Route breakable twice, class breakable, neither, wrong when clean.
CLIPS = planted.clips((NEAR, FAR), (NEAR, FAR), (FAR, NEAR), (FAR, FAR), (FAR, FAR))
LABELS = [0, 0, 0, 0, 1]
FACTORY = planted.batches(CLIPS, LABELS)

# Compilation is what takes the time here: of plain classifiers where no routing is needed, and
# without the checks of masked gradients, which have their own tests.
BASE = {"attacks": ["pgd", "pgd-r"], "epsilons": [EPSILON], "settings": SETTINGS}
PLAIN_PARAMS = jnp.float32(10.0)


def run(factory=FACTORY, params=planted.PARAMS, **options):
    options = BASE | {"programs": planted.PROGRAMS, "probe_batches": 0} | options
    return evaluate_suite(planted.MIXTURE, params, factory, **options)


def run_plain(model=planted.plain, factory=FACTORY, **options):
    options = BASE | {"attacks": ["pgd"], "probe_batches": 0} | options
    return evaluate_suite(model, PLAIN_PARAMS, factory, **options)


def attack_that_returns(change, component="model"):
    def build(model, threat, settings):
        def attack(key, params, x, y):
            loss = jnp.ones(x.shape[0])
            x_adv, finite = change(x, threat.epsilon), jnp.isfinite(loss)
            return AttackResult(x_adv, loss, loss[None], jnp.int32(1), 0 * loss, finite)

        return attack

    return attacks.NamedAttack("liar", build, component)
