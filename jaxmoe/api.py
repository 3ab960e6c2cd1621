"""One call for each common task: `jaxmoe.attack`, `evaluate`, `auto_attack`, `fit`, `report`.

They are thin: the functions of the rooms that they call take more.

Axes: N = examples, B = batch, K = classes.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxmoe.attacks import AttackResult, build_attack, find_attack
from jaxmoe.attacks.attack import Model
from jaxmoe.attacks.edge import (
    looks_like_images,
)
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.choices import DIVERGENCE, Norm
from jaxmoe.config import RECIPES, Experiment, MixtureConfig, RecipeConfig, check_recipe
from jaxmoe.evaluation import NonFiniteGradient, SuiteResult, auto_attack, evaluate_suite
from jaxmoe.evaluation.engine.arrays import cut
from jaxmoe.files import read_json, write_json
from jaxmoe.mixture import Mixture
from jaxmoe.parallel import Parallel, make_parallel
from jaxmoe.reporting.notebook import Report
from jaxmoe.reporting.page import write_page
from jaxmoe.runs.folder import hold_for_training
from jaxmoe.runs.run import loop_options, recipe_options
from jaxmoe.threat import ThreatModel
from jaxmoe.training import (
    LoopOptions,
    Phase,
    Progress,
    Recipe,
    RecipeOptions,
    Stage,
    Validation,
    make_measure_radii,
    make_validate,
)
from jaxmoe.training import fit as train_through
from jaxmoe.training.passes import Batches, Passes
from jaxmoe.training.radii import MeasureRadii

__all__ = ["attack", "auto_attack", "evaluate", "fit", "report"]

_DESCRIPTION = "fit.json"  # in the folder of a `fit`: what it was asked for


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
      name: of `jaxmoe attacks`: "pgd", "tlga-r", "j-tlga", …; `auto_attack` runs a cascade.
      epsilon: radius in pixel units, 8/255 for 8 grey levels.
      norm: `"linf"` or `"l2"`.
      seed: of the random start.
      settings: steps, restarts and the attack's other numbers.

    Returns:
      The result: `x_adv` like x, in float32 or wider, and the loss of each example.

    Raises:
      ValueError: an unknown attack, an attack on parts that the model lacks, or inputs that fit
        nothing; one line that says what would.
      NonFiniteGradient: a loss or gradient was not finite: that is no attack survived.
    """
    found = build_attack(name, model, ThreatModel(norm, epsilon), settings)(seed, params, x, y)
    broken = int(np.sum(~np.asarray(found.finite)))
    if broken:
        raise NonFiniteGradient(
            f"{name}: a loss or gradient is not finite on {broken} of {len(x)} examples"
        )
    return found


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
    batches = cut(x, y, min([batch_size, *x.shape[:1]]))
    return evaluate_suite(model, params, batches, attacks=attacks, epsilons=epsilons, **options)


def fit(
    mixture: Mixture,
    params: Any,
    batches: Batches,
    recipe: str | RecipeConfig | Recipe | Sequence[Phase],
    *,
    epochs: int,
    epsilon: float | None = None,
    norm: Norm = "linf",
    learning_rate: float | None = None,
    epsilon_warmup: float | None = None,
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
        labels. Devices share each; one size for all compiles once. Each pass begins them
        anew. A loader may shuffle, but only the same batches in every pass resume to the same bits.
      recipe: a name such as "j_tlat", a configuration of `config.RECIPES` such as
        `JTLATConfig(weak_experts=1)`, a function that makes phases, or the phases.
      epochs: passes over the batches.
      epsilon: radius of its attacks in pixel units; None where it has none.
      norm: `"linf"` or `"l2"`.
      learning_rate: the peak; None is that of `config.OptimizerConfig`.
      epsilon_warmup: share of the steps in which ε and λ rise from 0; None is that of
        `config.TrainingConfig`.
      options: the numbers of a recipe: its attack's settings, balance, β, …. None has those of an
        `Experiment`. A balance weight of None is the recipe's: 1.5 for "j_tlat", which collapses
        without, and 0.5 for others. A recipe's attacks take ε from here, as it warms up; phases
        that were made before keep theirs.
      seed: of random starts and noise.
      validation: batches that are judged after each epoch; `progress` is told.
      directory: keeps a checkpoint of each epoch, from which the same call goes on, and
        `metrics.jsonl`; the best by validation is `checkpoints/best`, for `training.Checkpoints`.
      progress: is told what goes on by `stage(name, steps, done)`, `step(metrics)` and
        `epoch(epoch, validation)`: `with reporting.progress.make_progress() as progress` shows it.
      devices: of this process; None takes all.

    Raises:
      ValueError: an unknown recipe, batches that fit nothing, no ε for a recipe that attacks, or a
        directory that holds another run.
      NonFiniteTrainingError: a loss or gradient that is not finite.
    """
    parallel, (known, make) = make_parallel(devices), _find_recipe(recipe)
    options = _options_of(known, options, given=isinstance(recipe, RecipeConfig))
    if known is not None:
        check_recipe(known, MixtureConfig(experts=mixture.num_experts, top_k=mixture.top_k))
    threat = ThreatModel(norm, 0.0 if epsilon is None else epsilon)
    attacks = any(phase.attack is not None for phase in make(mixture, threat, options))
    _check_asked(epochs, epsilon, attacks=attacks)
    passes = Passes("batches", batches, mixture, params)
    if known is not None:
        _check_frames(known, options.inner_attack, passes.shape)
    loop = _loop_options(learning_rate, seed, passes.length)
    own = Experiment().training.epsilon_warmup
    warmup = own if epsilon_warmup is None else epsilon_warmup
    name = known.name if known else "fit"
    judged = judge = None
    if validation is not None:
        judged = Passes("validation", validation, mixture, params)
        judge = _judge(judged, mixture, params, threat, options, parallel, attacks=attacks)
    measure = _measure(judged, name, mixture, params, threat, options, parallel)
    asked = {
        "recipe": name,
        "epochs": epochs,
        "epsilon": epsilon,
        "norm": norm,
        "learning_rate": loop.learning_rate,
        "epsilon_warmup": warmup,
        "options": repr(options),
        "seed": seed,
        "batches": passes.length,
        "fields": None if known is None else dataclasses.asdict(known),
        "validation": None if measure is None else judged.digest(),
    }
    every = 0 if measure is None else getattr(known, "measure_every", 1)
    order = {"in_turn": bool(known and known.in_turn), "measure_every": every}
    stage = Stage(name, make, epochs, warmup, **order)
    with _held(directory, asked) as run:
        trained = train_through(
            mixture,
            params,
            (stage,),
            passes,
            passes.length,
            threat=threat,
            options=loop,
            recipe_options=options,
            run=run,
            validate=judge,
            measure_radii=measure,
            parallel=parallel,
            progress=progress,
        )
    return jax.device_put(trained)


def _judge(
    judged: "Passes",
    mixture: Mixture,
    params: Any,
    threat: ThreatModel,
    options: RecipeOptions,
    parallel: Parallel,
    *,
    attacks: bool,
) -> Callable[[Any], Validation]:
    """What judges params by one pass over the validation batches."""
    of_params = make_validate(
        mixture, threat, options.attack, parallel, params, adversarial=attacks
    )
    return lambda params: of_params(params, judged.whole(parallel.local_count))


def _measure(
    judged: "Passes | None",
    recipe: str,
    mixture: Mixture,
    params: Any,
    threat: ThreatModel,
    options: RecipeOptions,
    parallel: Parallel,
) -> MeasureRadii | None:
    """Returns what measures the losses by which ε is drawn, by one pass over validation batches."""
    if not options.radii:
        return None
    if judged is None:
        raise ValueError(
            f"validation: None; expected batches: recipe {recipe} draws ε by the losses that it "
            "measures on them"
        )
    run = make_measure_radii(mixture, threat, options.attack, parallel, params, options.radii)
    return lambda params: run(params, judged.whole(parallel.local_count))


def _check_asked(epochs: int, epsilon: float | None, *, attacks: bool) -> None:
    if attacks and epsilon is None:
        raise ValueError("epsilon: None; expected a radius such as 8/255: the recipe attacks")
    if epochs < 1:
        raise ValueError(f"epochs: {epochs}; expected at least 1")


def _check_frames(recipe: RecipeConfig, inner: str | None, shape: tuple[int, ...]) -> None:
    names = set(recipe.attacks.values())
    if hasattr(recipe, "inner_attack") and inner not in (None, DIVERGENCE):
        names.add(inner)
    in_time = any(find_attack(name).temporal for name in names)
    if (recipe.sees_frames or in_time) and looks_like_images(shape):
        raise ValueError(
            f"recipe: {recipe.name} attacks in time, and inputs of shape {list(shape)} look like "
            "images; expected clips [B, T, H, W, C], or a recipe such as at_m"
        )


def _loop_options(learning_rate: float | None, seed: int, batches: int) -> LoopOptions:
    """The loop's numbers: those of an experiment, a checkpoint and a validation each epoch."""
    own = {} if learning_rate is None else {"learning_rate": learning_rate}
    each = {"validate_every": 1, "checkpoint_every": 1, "log_every": min(10, batches)}
    return dataclasses.replace(loop_options(Experiment()), seed=seed, **each, **own)


def _options_of(
    known: RecipeConfig | None, options: RecipeOptions | None, *, given: bool = False
) -> RecipeOptions:
    """The numbers that are given, else those of an experiment; a recipe that is given has its own.

    A recipe that only its name gives has the numbers of `options`, where these are given.
    """
    if options is not None:
        if known and options.balance_weight is None:
            options = options._replace(balance_weight=known.balance_weight)
        if known and not options.radii:
            options = options._replace(radii=getattr(known, "radii", 0))
        return known.fill(options) if known and given else options
    options = recipe_options(Experiment())
    return known.fill(options)._replace(balance_weight=known.balance_weight) if known else options


@contextlib.contextmanager
def _held(
    directory: str | pathlib.Path | None, asked: dict[str, Any]
) -> Iterator[pathlib.Path | None]:
    """Keeps a folder, if there is one, for a training that asks for this, and for no other.

    Raises:
      ValueError: it holds another one, or another process trains in it.
    """
    if directory is None:
        yield None
        return
    run = pathlib.Path(directory)
    if (run / "config.json").exists():
        raise ValueError(f"directory: {run} holds a run of `jaxmoe train`; choose another one")
    described = run / _DESCRIPTION
    if described.is_file():
        before = read_json(described)
        for name, value in asked.items():
            if before.get(name) != value:
                raise ValueError(
                    f"directory: {run} holds a training with {name} = {before.get(name)}, not "
                    f"{value}; choose another one"
                )
    run.mkdir(parents=True, exist_ok=True)
    with hold_for_training(run):
        write_json(described, asked)
        yield run


def _find_recipe(
    recipe: str | RecipeConfig | Recipe | Sequence[Phase],
) -> tuple[RecipeConfig | None, Recipe]:
    """The recipe's configuration, if it has one, and what makes its phases."""
    if isinstance(recipe, str):
        recipe = RECIPES.make(recipe)
    if isinstance(recipe, RecipeConfig):
        return recipe, recipe.phases
    if callable(recipe):
        return None, recipe
    phases = tuple(recipe)
    return None, lambda mixture, threat, options: phases


def report(
    *runs: str | os.PathLike, output: str | os.PathLike | None = None, seed: int = 0
) -> Report:
    """Writes the report page of a run that was judged, or of several side by side.

    Args:
      runs: folders of evaluations, such as `"runs/j_tlat"`.
      output: the file; None is `report.html` in the folder, or beside several.
      seed: of the examples that are drawn where there are too many.

    Returns:
      The page's path; in a notebook it shows the page.

    Raises:
      FileNotFoundError, ValueError: no run, none that was judged, or a damaged one; one line.
    """
    if not runs:
        raise ValueError("runs: none; expected at least one folder of an evaluation")
    return Report(write_page(runs, output, seed))
