"""A cascade of two attacks on a planted model, and its evaluation."""

import jax.numpy as jnp
import planted
from planted import FAR, NEAR

from jaxmoe.attacks import AttackSettings, Cascade, stage
from jaxmoe.evaluation import Programs, evaluate_suite

EPSILON = 4 / 255
SETTINGS = AttackSettings(steps=4, queries=4)
PARAMS = jnp.float32(10.0)
# Wrong when clean, breakable, safe, breakable, safe: frame 1 decides.
CLIPS = planted.clips((0, 0), (0, NEAR), (0, FAR), (0, NEAR), (0, FAR))
LABELS = [0, 0, 0, 0, 0]
PROGRAMS = Programs(planted.plain)
TWO = Cascade("Two", (stage("fgsm"), stage("pgd", restarts=2)))


def run(**options):
    options = {"attacks": ["two"], "epsilons": [EPSILON], "settings": SETTINGS} | options
    factory = planted.batches(CLIPS, LABELS, batch_size=2)
    model = options.pop("model", planted.plain)
    programs = PROGRAMS if model is planted.plain else None
    return evaluate_suite(model, PARAMS, factory, programs=programs, probe_batches=0, **options)
