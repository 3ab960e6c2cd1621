"""What a recipe costs, in training gradients of one expert, and how many epochs a cost allows.

It is counted in the step's program as JAX writes it down: convolutions and matmuls of every attack,
loss and router. So a step of PGD, which needs no gradient in the weights, is two thirds of a
training gradient.

B = examples of a batch.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmoe.attacks import cross_entropy
from jaxmoe.config import Experiment, Study
from jaxmoe.runs.build import build_mixture
from jaxmoe.runs.plan.count import count
from jaxmoe.runs.plan.program import Placing, Program
from jaxmoe.runs.study.cells import Cell

_BATCH = 64  # blocks of one example have B + M − 1 of them: few beyond B


class Cost(NamedTuple):
    """What the training of an arm takes, for each training example of one run."""

    gradients: float  # training gradients of one expert, of the arm's own training
    epochs: int


def costs(
    study: Study, experiments: Mapping[Cell, Experiment], classes: int
) -> dict[tuple[str, str], Cost]:
    """Returns the cost of each arm by (architecture, arm), its epochs as the study allows them.

    Args:
      study: what is compared.
      experiments: of its cells; those of other folds and seeds cost the same.
      classes: K.
    """
    found: dict[tuple[str, str], Cost] = {}
    for cell, experiment in experiments.items():
        key = cell.block.architecture, cell.arm
        if key in found or not experiment.training.epochs:
            continue
        each = gradients_per_example(experiment, classes) + measuring(experiment)
        epochs = experiment.training.epochs
        if study.gradients is not None and study.arms[cell.arm].costs:
            epochs = max(1, round(study.gradients / each))
        found[key] = Cost(each * epochs, epochs)
    return found


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
