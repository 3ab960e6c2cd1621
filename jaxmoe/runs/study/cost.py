"""What a recipe costs, in training gradients of one expert, and how many epochs a cost allows.

It is counted in the step's program as JAX writes it down: convolutions and matmuls of every attack,
loss and router. So a step of PGD, which needs no gradient in the weights, is two thirds of a
training gradient.

B = examples of a batch.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxmoe.attacks import cross_entropy
from jaxmoe.config import Experiment
from jaxmoe.runs.build import build_mixture
from jaxmoe.runs.plan.count import count
from jaxmoe.runs.plan.program import Placing, Program

_BATCH = 64  # blocks of one example have B + M − 1 of them: few beyond B


def gradients_per_example(experiment: Experiment, classes: int) -> float:
    """Returns what one step of the recipe costs for each of its examples.

    Args:
      experiment: a valid one.
      classes: K.
    """
    mixture = dataclasses.replace(experiment.mixture, block_size=1)
    program = Program("step", dataclasses.replace(experiment, mixture=mixture), classes, Placing(1))
    counted = count(program.trace(_BATCH)).total
    return counted / _BATCH / _training_gradient(experiment, classes)


def measuring(experiment: Experiment) -> float:
    """Returns what AAT-M's measurements cost in an epoch for each training example, on average."""
    radii = getattr(experiment.recipe, "radii", 0)
    if not radii:
        return 0.0
    share = experiment.data.validation_fraction
    each = radii * (experiment.attack.steps + 1) * 2 / 3
    return each * share / (1 - share) / experiment.recipe.measure_every


def epochs_for(experiment: Experiment, classes: int, gradients: float) -> int:
    """Returns the epochs of the recipe that cost about so many gradients; at least one."""
    epoch = gradients_per_example(experiment, classes) + measuring(experiment)
    return max(1, round(gradients / epoch))


def _training_gradient(experiment: Experiment, classes: int) -> float:
    """FLOPs of one gradient in the params of one expert, on one example."""
    mixture = build_mixture(experiment, classes)
    x = jax.ShapeDtypeStruct((1, *experiment.data.shape), jnp.float32)
    params = jax.eval_shape(mixture.init, jax.random.key(0), x)
    label = experiment.data.shape[:-1] if experiment.data.labels_pixels else ()

    def loss(experts, x):
        logits = mixture.expert({**params, "experts": experts}, x, 0)
        return jnp.sum(cross_entropy(logits, jnp.zeros((1, *label), jnp.int32)))

    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), params)
    return count(jax.make_jaxpr(jax.grad(loss))(one["experts"], x)).total
