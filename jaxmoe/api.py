"""What most people come for, in one call each: `jaxmoe.attack`, `jaxmoe.evaluate`, `jaxmoe.fit`.

They are thin: the functions of the rooms that they call take more.

Axes: N = examples, B = batch, K = classes.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmoe.attacks import AttackResult, build_attack
from jaxmoe.attacks.attack import Model
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.config import Experiment
from jaxmoe.evaluation import SuiteResult, auto_attack, evaluate_suite
from jaxmoe.mixture import Mixture
from jaxmoe.parallel import Parallel
from jaxmoe.run import loop_options
from jaxmoe.threat import Norm, ThreatModel
from jaxmoe.training import (
    RECIPES,
    Phase,
    Progress,
    Recipe,
    RecipeOptions,
    Stage,
    make_validate,
)
from jaxmoe.training import fit as train_through

__all__ = ["attack", "auto_attack", "evaluate", "fit"]

Batches = Iterable[tuple[np.ndarray, np.ndarray]]
"""Pairs `(x [B, …], y [B, …])`; an iterable that starts anew for every pass."""


def attack(
    model: Model,
    params: Any,
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    *,
    epsilon: float,
    norm: Norm = "linf",
    seed: int = 0,
    settings: AttackSettings = AttackSettings(),
) -> AttackResult:
    """Attacks examples once, all of them in one batch.

    Args:
      model: a mixture, or `apply(params, x) -> [B, K]`; parts need a mixture.
      params: its params.
      x: `[B, …]`, uint8 grey levels or floats in [0, 1].
      y: labels, int `[B]`.
      name: of `jaxmoe attacks`: "pgd", "tlga-r", "j-tlga", ….
      epsilon: radius in pixel units, 8/255 for 8 grey levels.
      norm: `"linf"` or `"l2"`.
      seed: of the random start.
      settings: steps, restarts and the attack's other numbers.

    Returns:
      What was found: `x_adv` like x, in float32 or wider, and the loss of each example.

    Raises:
      ValueError: an unknown attack, an attack on parts that the model lacks, or inputs that fit
        nothing; one line that says what would.
    """
    run = build_attack(name, model, ThreatModel(norm, epsilon), settings)
    return run(seed, params, x, y)


def evaluate(
    model: Model,
    params: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    attacks: Sequence[str],
    epsilons: Sequence[float],
    batch_size: int = 128,
    **options: Any,
) -> SuiteResult:
    """Attacks arrays with several attacks at several ε: the worst case, parts, checks.

    Args:
      model: a mixture, or `apply(params, x) -> [B, K]`.
      params: its params.
      x: `[N, …]`, uint8 grey levels or floats in [0, 1].
      y: labels, int `[N]`, or `[N, …]` where each position has one.
      attacks: names of `jaxmoe attacks`, "auto-attack" among them.
      epsilons: radii in pixel units.
      batch_size: examples at once.
      **options: of `evaluation.evaluate_suite`: `settings`, `norm`, `seed`, `progress`, ….

    Raises:
      ValueError: lengths that differ, an attack or input that fits nothing.
      NonFiniteError: outputs, losses or gradients that are not finite.
    """
    x, y = np.asarray(x), np.asarray(y)
    if not (x.shape and y.shape and 0 < len(x) == len(y)):
        raise ValueError(
            f"x, y: shapes {x.shape} and {y.shape}; expected as many examples as labels, and some"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} is not at least 1")
    size = min(batch_size, len(x))

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        for start in range(0, len(x), size):
            index = np.arange(start, start + size)
            place = np.minimum(index, len(x) - 1)
            yield {"clip": x[place], "label": y[place], "index": place, "valid": index < len(x)}

    return evaluate_suite(model, params, batches, attacks=attacks, epsilons=epsilons, **options)


def fit(
    mixture: Mixture,
    params: Any,
    batches: Batches,
    recipe: str | Recipe | Sequence[Phase],
    *,
    epochs: int,
    epsilon: float | None = None,
    norm: Norm = "linf",
    learning_rate: float | None = None,
    epsilon_warmup: float = 0.0,
    options: RecipeOptions | None = None,
    seed: int = 0,
    validation: Batches | None = None,
    directory: str | pathlib.Path | None = None,
    progress: Progress | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Any:
    """Trains a mixture of your own by any recipe; returns the last params.

    Args:
      mixture: what is trained, such as `mixture.from_functions` makes.
      params: where it starts.
      batches: one pass over the training examples: uint8 grey levels or floats in [0, 1], and
        labels. All but the last have one size, which splits over the devices. Each pass begins it
        anew, so it may shuffle.
      recipe: a name of `training.RECIPES` such as "j_tlat", a recipe, or its phases.
      epochs: passes over the batches.
      epsilon: radius of its attacks in pixel units; None where it has none.
      norm: `"linf"` or `"l2"`.
      learning_rate: the peak; None is `OptimizerConfig`'s.
      epsilon_warmup: share of the steps in which ε and λ rise from 0.
      options: the recipe's numbers: its attack's settings, balance, β, …; None has the defaults.
      seed: of random starts and noise.
      validation: batches that are judged after each epoch, and shown.
      directory: keeps checkpoints and metrics, from which the same call goes on; None keeps none.
      progress: is told what goes on; `reporting.progress.make_progress()` shows a bar.
      devices: of this process; None takes all.

    Raises:
      ValueError: an unknown recipe, no batches, no ε for a recipe that attacks, or a batch that
        does not split over the devices.
      NonFiniteTrainingError: a loss or gradient that is not finite.
    """
    make, options = _find_recipe(recipe), options or RecipeOptions()
    threat = ThreatModel(norm, 0.0 if epsilon is None else epsilon)
    attacks = any(phase.attack is not None for phase in make(mixture, threat, options))
    if attacks and epsilon is None:
        raise ValueError("epsilon: None; expected a radius such as 8/255: the recipe attacks")
    passes = _Passes(batches)
    if not passes.length:
        raise ValueError("batches: none; expected at least one (x, y)")
    if epochs < 1:
        raise ValueError(f"epochs: {epochs}; expected at least 1")
    parallel = Parallel(devices)
    loop = dataclasses.replace(loop_options(Experiment()), seed=seed, evaluate_every=1)
    if learning_rate is not None:
        loop = dataclasses.replace(loop, learning_rate=learning_rate)
    validate = None
    if validation is not None:
        judge = make_validate(mixture, threat, options.attack, parallel, adversarial=attacks)

        def validate(params):
            return judge(params, _whole(validation, parallel))

    trained = train_through(
        mixture,
        params,
        (Stage(recipe if isinstance(recipe, str) else "fit", make, epochs, epsilon_warmup),),
        passes,
        passes.length,
        threat=threat,
        options=loop,
        recipe_options=options,
        run=None if directory is None else pathlib.Path(directory),
        validate=validate,
        parallel=parallel,
        progress=progress,
    )
    return jax.device_put(trained)


def _find_recipe(recipe: str | Recipe | Sequence[Phase]) -> Recipe:
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(f"recipe: {recipe!r} is none; expected one of {', '.join(RECIPES)}")
        return RECIPES[recipe]
    if callable(recipe):
        return recipe
    phases = tuple(recipe)
    return lambda mixture, threat, options: phases


class _Passes:
    """Batches without an end, pass after pass, whose place can be saved."""

    def __init__(self, batches: Batches):
        self._batches = batches
        self.length = sum(1 for _ in batches)
        self._pass, self._batch, self._example = 0, 0, 0
        self._iterator: Iterator | None = None

    def __next__(self) -> Mapping[str, np.ndarray]:
        if self._iterator is None or self._batch == self.length:
            self._begin()
        x, y = next(self._iterator)
        index = np.arange(self._example, self._example + len(x))
        self._batch, self._example = self._batch + 1, self._example + len(x)
        return {"clip": np.asarray(x), "label": np.asarray(y), "index": index}

    def _begin(self) -> None:
        self._iterator = iter(self._batches)
        self._batch, self._example = 0, 0

    def get_state(self) -> int:
        """Batches of this pass that were taken."""
        return self._batch

    def set_state(self, state: int) -> None:
        """Goes on behind so many batches of a new pass."""
        self._begin()
        for _ in range(state):
            next(self)


def _whole(batches: Batches, parallel: Parallel) -> Iterator[Mapping[str, np.ndarray]]:
    """Batches that split over the devices, padded with examples that do not count."""
    for x, y in batches:
        count, devices = len(x), len(parallel.devices)
        index = np.arange(-(-count // devices) * devices)
        place = np.minimum(index, count - 1)
        x, y = np.asarray(x)[place], np.asarray(y)[place]
        yield {"clip": x, "label": y, "index": index, "valid": index < count}
