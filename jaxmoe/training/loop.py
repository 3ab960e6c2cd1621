"""The training loop: stages of epochs of steps, with validation, checkpoints and resume."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmoe.mixture import Mixture
from jaxmoe.parallel import AXIS, Parallel
from jaxmoe.threat import ThreatModel
from jaxmoe.training.checkpoint import Checkpoints
from jaxmoe.training.metrics_log import MetricsLog
from jaxmoe.training.optimizer import adamw, epsilon_schedule, learning_rate_schedule
from jaxmoe.training.phase import Params, Recipe, RecipeOptions
from jaxmoe.training.step import Batch, TrainState, init_state, is_frozen, make_train_step
from jaxmoe.training.validation import NonFiniteTrainingError, Validation


class Position(Protocol):
    """An iterator of batches whose place can be saved."""

    def __next__(self) -> Mapping[str, np.ndarray]:
        """The next batch: `clip`, `label`, `index`."""
        ...

    def get_state(self) -> Any:
        """The place, as JSON holds it."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes on from a place."""
        ...


@dataclasses.dataclass(frozen=True)
class Stage:
    """Epochs of one recipe.

    Attributes:
      name: shown while it runs.
      recipe: makes the phases.
      epochs: passes over the training clips.
      epsilon_warmup: share of the stage in which ε and λ rise from 0.
      in_turn: sweep the data once for each phase instead of running all phases on each batch.
      prepare: `(key, params) -> params`, once before the stage; None leaves them.
      validates: whether the mixture is worth a look while it runs.
      selects: whether its validations may become the best checkpoint.
    """

    name: str
    recipe: Recipe
    epochs: int
    epsilon_warmup: float = 0.0
    in_turn: bool = False
    prepare: Callable[[Any, Params], Params] | None = None
    validates: bool = True
    selects: bool = True


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """The numbers of the loop; the fields of `OptimizerConfig` and `RunConfig`."""

    learning_rate: float
    weight_decay: float
    schedule: str
    warmup: float
    gradient_clip: float
    seed: int
    checkpoint_every: int
    evaluate_every: int
    log_every: int


class Progress(Protocol):
    """What is told while a run goes on."""

    def stage(self, name: str, steps: int, done: int) -> None:
        """A stage of `steps` begins, `done` of them done before."""
        ...

    def step(self, metrics: Mapping[str, float] | None) -> None:
        """A step is done; its metrics where they were read."""
        ...

    def epoch(self, epoch: int, validation: Validation) -> None:
        """An epoch was validated."""
        ...


def copy_expert(noise: float) -> Callable[[Any, Params], Params]:
    """`prepare` that gives every expert the params of expert 0, times 1 + noise · 𝒩(0, 1)."""

    def prepare(key, params):
        leaves, structure = jax.tree_util.tree_flatten_with_path(params["experts"])
        keys = jax.random.split(key, len(leaves))
        copies = [
            jnp.broadcast_to(leaf[:1], leaf.shape)
            * (1 if is_frozen(path) else 1 + noise * jax.random.normal(k, leaf.shape, leaf.dtype))
            for k, (path, leaf) in zip(keys, leaves, strict=True)
        ]
        return {**params, "experts": jax.tree.unflatten(structure, copies)}

    return prepare


def fit(
    run: pathlib.Path,
    mixture: Mixture,
    params: Params,
    stages: tuple[Stage, ...],
    batches: Position,
    batches_per_epoch: int,
    validate: Callable[[Params], Validation],
    threat: ThreatModel,
    options: LoopOptions,
    recipe_options: RecipeOptions,
    parallel: Parallel,
    progress: Progress,
) -> Params:
    """Trains through `stages` and returns the last params; resumes where `run` was left.

    Batches, keys and schedules are functions of the seed and the step alone, and the loader's place
    is in the checkpoint, so a killed run that resumes ends with the same params to the bit; on a
    GPU only where XLA's own operations are deterministic (`--xla_gpu_deterministic_ops`).

    Raises:
      NonFiniteTrainingError: a metric is not finite.
      ValueError: the run's checkpoint is of another model, or damaged.
      OSError: the disk is full or failed; the checkpoint before is kept.
    """
    optimizer = adamw(options.weight_decay, options.gradient_clip)
    checkpoints = Checkpoints(run)
    key = jax.random.key(options.seed)
    # Many shapes are drawn once: rbg compiles them in seconds, Threefry in half a minute.
    prepare_key = jax.random.key(options.seed, impl="rbg")
    like = jax.eval_shape(lambda p: init_state(p, optimizer), params)
    resumed = checkpoints.restore("latest", like)
    start_stage, start_epoch, global_step, best = 0, 0, 0, None
    seconds, state = 0.0, None
    if resumed is not None:
        state, position = resumed
        start_stage, start_epoch = position["stage"], position["epoch"]
        global_step, best = position["global_step"], position["best"]
        seconds = position["seconds"]
        batches.set_state(position["loader"])
    log = MetricsLog(run, global_step)
    began = time.monotonic() - seconds

    for number, stage in enumerate(stages):
        if number < start_stage:
            continue
        first_epoch = start_epoch if number == start_stage else 0
        if first_epoch == 0:
            if state is not None:
                params = state.params
            if stage.prepare is not None:
                params = stage.prepare(jax.random.fold_in(prepare_key, number), params)
            state = init_state(params, optimizer)
        sweeps = _sweeps(stage, mixture, threat, recipe_options)
        steps = stage.epochs * batches_per_epoch * len(sweeps)
        steppers = [
            parallel.map(
                make_train_step(
                    mixture,
                    stage.recipe,
                    recipe_options,
                    threat,
                    optimizer,
                    learning_rate_schedule(
                        options.schedule, options.learning_rate, steps, options.warmup
                    ),
                    epsilon_schedule(threat.epsilon, steps, stage.epsilon_warmup),
                    lam_share=epsilon_schedule(1.0, steps, stage.epsilon_warmup)
                    if stage.epsilon_warmup
                    else None,
                    spread=optax.linear_schedule(1.0, recipe_options.spread_left, steps),
                    axis_name=AXIS,
                    only_phase=only_phase,
                ),
                donate_state=True,
            )
            for only_phase in sweeps
        ]
        stage_key = jax.random.fold_in(key, number)
        progress.stage(stage.name, steps, int(state.step))
        replicated = parallel.replicate(state)
        unread: list[Mapping[str, jax.Array]] = []  # reading a step's metrics waits for it
        for epoch in range(first_epoch, stage.epochs):
            for stepper in steppers:
                for _ in range(batches_per_epoch):
                    batch = next(batches)
                    shards = parallel.shard(Batch(batch["clip"], batch["label"], batch["index"]))
                    replicated, metrics = stepper(replicated, shards, stage_key)
                    global_step += 1
                    unread.append(metrics)
                    shown = None
                    if global_step % options.log_every == 0:
                        shown = _read(unread, parallel, stage.name, global_step)
                        log.write(global_step, {"stage": stage.name, **shown})
                    progress.step(shown)
            done = epoch + 1
            last = done == stage.epochs
            every = options.evaluate_every
            if stage.validates and every and (done % every == 0 or last):
                _read(unread, parallel, stage.name, global_step)
                validation = validate(replicated.params)
                log.write(
                    global_step,
                    {"epoch": done, "stage": stage.name}
                    | {
                        f"validation/{name}": value
                        for name, value in validation._asdict().items()
                        if value is not None
                    },
                )
                progress.epoch(done, validation)
                robust_accuracy = validation.robust_accuracy or 0.0
                score = [robust_accuracy, validation.accuracy, -validation.loss]
                if stage.selects and (best is None or score > best):
                    best = score
                    state = parallel.first(replicated)
                    checkpoints.save("best", global_step, state, {"epoch": done, "score": score})
            if done % options.checkpoint_every == 0 or last:
                _read(unread, parallel, stage.name, global_step)
                state = parallel.first(replicated)
                following = (
                    {"stage": number + 1, "epoch": 0} if last else {"stage": number, "epoch": done}
                )
                checkpoints.save(
                    "latest",
                    global_step,
                    state,
                    {
                        **following,
                        "finished": last and number == len(stages) - 1,
                        "global_step": global_step,
                        "best": best,
                        "seconds": time.monotonic() - began,
                        "loader": batches.get_state(),
                    },
                )
        state = parallel.first(replicated)
    log.close()
    return state.params


def restore_params(run: pathlib.Path, which: str, params: Params, options: LoopOptions) -> Params:
    """The params of a run's checkpoint; `params` tells their structure.

    Raises:
      FileNotFoundError: the run has no such checkpoint.
      ValueError: it is of another model.
    """
    optimizer = adamw(options.weight_decay, options.gradient_clip)
    like = jax.eval_shape(lambda p: init_state(p, optimizer), params)
    found = Checkpoints(run).restore(which, like)
    if found is None:
        raise FileNotFoundError(f"run.directory: {run} has no {which} checkpoint; train it first")
    state: TrainState = found[0]
    return state.params


def _sweeps(
    stage: Stage, mixture: Mixture, threat: ThreatModel, options: RecipeOptions
) -> Iterable[int | None]:
    if not stage.in_turn:
        return [None]
    return list(range(len(stage.recipe(mixture, threat, options))))


def _read(
    unread: list[Mapping[str, jax.Array]], parallel: Parallel, stage: str, step: int
) -> dict[str, float]:
    """The metrics of the last step; every unread step's are checked and forgotten."""
    shown: dict[str, float] = {}
    first = step - len(unread) + 1
    for number, metrics in enumerate(unread, first):
        shown = {name: float(value) for name, value in parallel.first(metrics).items()}
        for name, value in shown.items():
            if not np.isfinite(value) or (name.endswith("/finite") and value < 1):
                raise NonFiniteTrainingError(f"{stage}: {name} is not finite at step {number}")
    unread.clear()
    return {name: value for name, value in shown.items() if not name.endswith("/finite")}
