"""What training costs, in training gradients of one expert, and how many epochs a cost allows.

It is counted in the step's program as JAX writes it down: convolutions and matmuls of every attack,
loss and router. So a step of PGD, which needs no gradient in the weights, is two thirds of a
training gradient.

B = examples of a batch.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmoe.attacks import cross_entropy
from jaxmoe.config import Experiment, Study
from jaxmoe.runs.build import build_mixture
from jaxmoe.runs.plan.count import count
from jaxmoe.runs.plan.parts import forward_of
from jaxmoe.runs.plan.program import Placing, Program
from jaxmoe.runs.run import init_params
from jaxmoe.runs.study.cells import Cell

_BATCH = 64  # blocks of one example: as many as there are examples, and none is filled up


class Cost(NamedTuple):
    """What an arm takes, for each training example of one run.

    Attributes:
      gradients: training gradients of one expert, of the recipe that the study gives epochs.
      in_all: the same with the arm's clean stages and those of the runs that it starts from.
      epochs: of the recipe.
      gflops: of one forward pass on one example.
      dense_gflops: the same with all experts.
    """

    gradients: float
    in_all: float
    epochs: int
    gflops: float
    dense_gflops: float


def costs(
    study: Study, experiments: Mapping[Cell, Experiment], classes: int
) -> dict[tuple[str, str], Cost]:
    """Returns the cost of each arm by (architecture, arm), its epochs as the study allows them.

    Args:
      study: of the arms.
      experiments: of its cells, starts first; those of other folds and seeds cost the same.
      classes: K.

    Raises:
      ValueError: a cost that nobody knows before it runs, or above what the study allows.
    """
    found: dict[tuple[str, str], Cost] = {}
    for cell, experiment in experiments.items():
        key = cell.block.architecture, cell.arm
        if key not in found:
            start = found.get((cell.block.architecture, study.arms[cell.arm].start))
            found[key] = _cost(study, cell, experiment, classes, start)
    return found


def _cost(
    study: Study, cell: Cell, experiment: Experiment, classes: int, start: Cost | None
) -> Cost:
    epochs, own, before = experiment.training.epochs, 0.0, clean_stages(experiment)
    if epochs:
        each, measured = gradients_per_example(experiment, classes), _measurement(experiment)
        every = getattr(experiment.recipe, "measure_every", 1)

        def cost_of(epochs: int) -> float:
            return epochs * each + math.ceil(epochs / every) * measured

        if study.gradients is not None and study.arms[cell.arm].costs:
            epochs = 1
            while cost_of(epochs + 1) <= study.gradients:
                epochs += 1
            if cost_of(epochs) > study.gradients:
                raise ValueError(
                    f"gradients: {study.gradients:g} is not accepted; expected at least "
                    f"{math.ceil(cost_of(1))}: an epoch of {cell.arm} takes as many"
                )
        own = cost_of(epochs)
    in_all = own + before + (0.0 if start is None else start.in_all)
    mixture = build_mixture(experiment, classes)
    params = jax.eval_shape(lambda: init_params(experiment, mixture))
    forward = forward_of(experiment, mixture, params)
    return Cost(own, in_all, epochs, forward.mixture / 1e9, forward.dense / 1e9)


def clean_stages(experiment: Experiment) -> float:
    """Returns the training gradients for each example of the stages before the recipe."""
    t = experiment.training
    if t.initialize_from is not None or t.initialize_experts_from is not None:
        return 0.0
    together = 0 if experiment.recipe.is_clean else t.standard_epochs * experiment.mixture.top_k
    dense = experiment.mixture.experts * t.dense_epochs
    return float(t.shared_epochs + dense + t.specialize_epochs + together)


def gradients_per_example(experiment: Experiment, classes: int) -> float:
    """Returns what one step of the recipe costs for each of its examples.

    Args:
      experiment: a valid one.
      classes: K.

    Raises:
      ValueError: an attack whose steps are not known before it runs.
    """
    program = Program("step", _with_small_blocks(experiment), classes, Placing(1))
    counted = count(program.trace(_BATCH))
    if counted.unknown_loops:
        raise ValueError(
            f"recipe.name: {experiment.recipe.name} is not accepted; expected attacks that take "
            "as many steps whatever they find: nobody knows what these cost"
        )
    return counted.total / _BATCH / _training_gradient(experiment, classes)


def _measurement(experiment: Experiment) -> float:
    """Returns what one measurement of AAT-M's costs for each training example."""
    radii = getattr(experiment.recipe, "radii", 0)
    share = 0.0 if experiment.data.has_validation else experiment.data.validation_fraction
    attack = experiment.attack
    # A look is half of a step: at the last iterate of each start, and at the best of all.
    looks = attack.steps * attack.restarts + (attack.restarts + 1) / 2
    return radii * looks * 2 / 3 * experiment.mixture.top_k * share / (1 - share)


def _with_small_blocks(experiment: Experiment) -> Experiment:
    mixture = dataclasses.replace(experiment.mixture, block_size=1)
    return dataclasses.replace(experiment, mixture=mixture)


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
