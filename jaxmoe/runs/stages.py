"""The stages of a run: what trains before its recipe, and how experts part."""

import dataclasses

import numpy as np

from jaxmoe import data
from jaxmoe.config import Experiment
from jaxmoe.runs.build import evaluation_loader
from jaxmoe.training import Recipe, Stage, copy_expert, dense, shared_expert
from jaxmoe.training.clusters import appearance, draw_records, find_centres
from jaxmoe.training.recipes.specialists import (
    by_cluster,
    by_likelihood,
    by_own_choice,
    expert_choice,
    specialists,
    specialists_of,
)
from jaxmoe.training.recipes.standard import standard


def stages_of(experiment: Experiment, dataset: data.Dataset) -> tuple[Stage, ...]:
    """Returns shared expert, dense mixture, specialists, clean mixture, recipe.

    Each is there where it has epochs. The last one's validations select the best checkpoint.
    """
    t = experiment.training
    own = experiment.recipe
    recipe = Stage(
        own.name,
        own.phases,
        t.epochs,
        epsilon_warmup=t.epsilon_warmup,
        in_turn=own.in_turn,
        measure_every=getattr(own, "measure_every", 0),
        patience=t.patience,
    )
    stages = [recipe]
    if t.initialize_from is not None or t.initialize_experts_from is not None:
        return (recipe,)
    if t.standard_epochs and not own.is_clean:
        stages.insert(0, Stage("standard", standard, t.standard_epochs, selects=False))
    if t.specialize_epochs:
        apart = _specialists(experiment, dataset)
        stages.insert(0, Stage("specialists", apart, t.specialize_epochs, selects=False))
    if t.dense_epochs:
        stages.insert(0, Stage("dense", dense, t.dense_epochs, selects=False))
    if t.shared_epochs:
        stages[0] = dataclasses.replace(stages[0], prepare=copy_expert(t.shared_noise))
        shared = Stage(
            "shared expert",
            shared_expert,
            t.shared_epochs,
            validates=False,
            learning_rate=t.shared_learning_rate,
        )
        stages.insert(0, shared)
    if not t.epochs:
        stages.pop()
    stages[-1] = dataclasses.replace(stages[-1], selects=True)
    return tuple(stages)


def _specialists(experiment: Experiment, dataset: data.Dataset) -> Recipe:
    """Returns the recipe by which experts part."""
    match experiment.training.specialize:
        case "expert_choice":
            return expert_choice
        case "own":
            return specialists(by_own_choice)
        case "likelihood":
            return specialists(by_likelihood)
        case "column":
            column, experts = experiment.training.specialize_column, experiment.mixture.experts
            return specialists_of(_experts_by_column(dataset, column, experts))
    clips = dataset.train.take(draw_records(dataset.train.records, experiment.run.seed))
    batches = evaluation_loader(clips, experiment.data, experiment.evaluation.batch_size)
    centres = find_centres(batches, experiment.mixture.experts, experiment.run.seed)
    return specialists(by_cluster(centres, appearance))


def _experts_by_column(dataset: data.Dataset, column: str, experts: int) -> np.ndarray:
    """Returns the expert of each training example by its number; the values take turns."""
    columns = dataset.columns(dataset.train)
    if column not in columns:
        known = ", ".join(columns) or "none: this data has no columns"
        raise ValueError(f"training.specialize_column: {column!r} is not there; known are {known}")
    missing = sum(not value for value in columns[column].values())
    if missing:
        raise ValueError(
            f"training.specialize_column: {column!r} is empty for {missing} training examples; "
            "expected a value for each"
        )
    values = sorted(set(columns[column].values()))
    if len(values) < experts:
        raise ValueError(
            f"training.specialize_column: {column!r} has {len(values)} values; expected at least "
            f"one for each of mixture.experts = {experts}"
        )
    found = np.zeros(max(columns[column]) + 1, np.int32)
    for index, value in columns[column].items():
        found[index] = values.index(value) % experts
    return found
