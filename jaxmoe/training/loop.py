"""The training loop: stages of epochs of steps, with validation, checkpoints and resume."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
import optax

from jaxmoe.mixture import Mixture, shard_experts
from jaxmoe.parallel import EXPERT, Parallel, make_parallel
from jaxmoe.threat import ThreatModel
from jaxmoe.training.checkpoints import Checkpoints, PreemptedError, Preemption
from jaxmoe.training.metrics_log import MetricsLog
from jaxmoe.training.optimizer import adamw
from jaxmoe.training.phase import Params, RecipeOptions
from jaxmoe.training.radii import MeasureRadii
from jaxmoe.training.schedules import numbers_of, scheduled
from jaxmoe.training.stages import LoopOptions, Position, Progress, Silent, Stage
from jaxmoe.training.state import Batch, TrainState, fill_up, init_state
from jaxmoe.training.step import make_train_step
from jaxmoe.training.validation import NonFiniteTrainingError, Validation, beside


def fit(
    mixture: Mixture,
    params: Params,
    stages: tuple[Stage, ...],
    batches: Position,
    batches_per_epoch: int,
    *,
    threat: ThreatModel,
    options: LoopOptions,
    recipe_options: RecipeOptions,
    run: pathlib.Path | None = None,
    validate: Callable[[Params], Validation] | None = None,
    measure_radii: MeasureRadii | None = None,
    parallel: Parallel | None = None,
    progress: Progress | None = None,
) -> Params:
    """Trains through `stages` and returns the last params; resumes where `run` was left.

    Batches, keys and schedules are functions of the seed and the step alone, and the loader's place
    is in the checkpoint, so a killed run that resumes ends with the same params to the bit; on a
    GPU only where XLA's own operations are deterministic (`--xla_gpu_deterministic_ops`).

    Args:
      mixture: what is trained.
      params: where it starts; a checkpoint in `run` goes first.
      stages: one after the other, each with an optimiser of its own.
      batches: without an end; its place is saved.
      batches_per_epoch: how many of them are one pass over the data.
      threat: the threat model of the attacks.
      options: the numbers of the loop.
      recipe_options: those of the recipes.
      run: the folder for checkpoints and metrics; None keeps neither.
      validate: called with params as `parallel` places them; None keeps no best checkpoint.
      measure_radii: gives the losses by which ε is drawn, in stages with `measure_every`.
      parallel: the devices, and what of the state lies where; None takes all, and splits nothing.
      progress: is told what goes on.

    Raises:
      NonFiniteTrainingError: a metric is not finite.
      ValueError: the run's checkpoint is of another model, or damaged.
      OSError: the disk is full or failed; the checkpoint before is kept.
    """
    parallel = parallel or make_parallel()
    like = jax.eval_shape(lambda p: begin_state(p, options, recipe_options.radii), params)
    loop = _Loop(
        split_experts(mixture, parallel),
        stages,
        batches,
        batches_per_epoch,
        threat,
        options,
        recipe_options,
        _optimizer(options),
        _open(run, options),
        validate,
        measure_radii,
        parallel,
        like,
        progress or Silent(),
        Preemption(),
    )
    state, params, place = loop.resume(params)
    logs = run is not None and jax.process_index() == 0
    log = MetricsLog(run, place.global_step, options.logger or ()) if logs else None
    try:
        with contextlib.nullcontext() if run is None else loop.preemption.listen():
            for number in range(place.stage, len(stages)):
                if state is None:
                    state = loop.start(number, params)
                state = loop.train(number, place, state, log)
                if number + 1 < len(stages):
                    params, state = parallel.whole(state.params, like.params), None
        if loop.checkpoints is not None:
            loop.checkpoints.wait()
    except BaseException:
        with contextlib.suppress(OSError):  # what stopped the training says more
            _close(loop.checkpoints)
            _close(log)
        raise
    _close(loop.checkpoints)
    _close(log)
    return params if state is None else parallel.whole(state.params, like.params)


def split_experts(mixture: Mixture, parallel: Parallel) -> Mixture:
    """Returns the mixture as each device of a mapping runs it."""
    if parallel.expert == 1:
        return mixture
    axes = parallel.shards({}).axes
    return shard_experts(mixture, EXPERT, parallel.expert, axes.names)


def _optimizer(options: LoopOptions) -> optax.GradientTransformation:
    return adamw(options.weight_decay, options.gradient_clip)


def begin_state(params: Params, options: LoopOptions, radii: int) -> TrainState:
    """Returns the state before the first step of a stage.

    Args:
      params: where it starts.
      options: the loop's numbers, which say what the optimiser is and if an average is kept.
      radii: from so many ε a batch's is drawn; 0 draws none.
    """
    averaged = options.average_decay > 0
    return init_state(params, _optimizer(options), averaged=averaged, radii=radii)


def _open(run: pathlib.Path | None, options: LoopOptions) -> Checkpoints | None:
    if run is None:
        return None
    return Checkpoints(run, keep=options.keep_latest, keep_every=options.keep_every)


def _close(kept: MetricsLog | Checkpoints | None) -> None:
    if kept is not None:
        kept.close()


@dataclasses.dataclass
class _Place:
    """Where a run stands; changes as it goes on."""

    began: float  # on the monotonic clock, so that stops between do not count
    stage: int = 0
    step: int = 0  # of the stage, done
    global_step: int = 0
    best: list[float] | None = None  # score of the best validation
    since_best: int = 0  # validations after it


class _Loop(NamedTuple):
    """The loop, with what stays the same while a run trains."""

    mixture: Mixture
    stages: tuple[Stage, ...]
    batches: Position
    batches_per_epoch: int
    threat: ThreatModel
    options: LoopOptions
    recipe_options: RecipeOptions
    optimizer: optax.GradientTransformation
    checkpoints: Checkpoints | None
    validate: Callable[[Params], Validation] | None
    measure_radii: MeasureRadii | None
    parallel: Parallel
    like: TrainState  # the shapes of the whole state
    progress: Progress
    preemption: Preemption

    def resume(self, params: Params) -> tuple[TrainState | None, Params, _Place]:
        """Returns the placed state inside of a stage, else the params before one; and where."""
        place, resumed = _Place(time.monotonic()), None
        if self.checkpoints is not None:
            like = self.parallel.saved(self.like)
            resumed = self.checkpoints.restore("latest", like, set_aside=True)
        if resumed is None:
            return None, params, place
        state, saved = resumed
        place.stage, place.step = saved["stage"], saved.get("step", 0)
        if "step" not in saved and saved["epoch"]:  # as older versions wrote it
            place.step = saved["epoch"] * self.steps_of(self.stages[place.stage])[1]
        place.global_step, place.best = saved["global_step"], saved["best"]
        place.since_best = saved.get("since_best", 0)
        place.began -= saved["seconds"]
        self.batches.set_state(saved["loader"])
        if not place.step:
            return None, self.parallel.whole(self.parallel.adopt(state).params, params), place
        return self.parallel.adopt(state), params, place

    def start(self, number: int, params: Params) -> TrainState:
        """Returns the placed state with which a stage begins."""
        prepare = self.stages[number].prepare
        if prepare is not None:
            # Many shapes are drawn once: rbg compiles them in seconds, Threefry in half a minute.
            key = jax.random.key(self.options.seed, impl="rbg")
            params = prepare(jax.random.fold_in(key, number), params)
        radii = self.recipe_options.radii
        return self.parallel.make(lambda p: begin_state(p, self.options, radii), params, self.like)

    def train(
        self, number: int, place: _Place, state: TrainState, log: MetricsLog | None
    ) -> TrainState:
        """Runs a stage from where `place` says; returns the placed state at its end."""
        stage = self.stages[number]
        sweeps, per_epoch = self.steps_of(stage)
        steps = stage.epochs * per_epoch
        steppers = [self._stepper(stage, only_phase) for only_phase in sweeps]
        numbers = self._numbers(stage, steps)
        key = self.parallel.everywhere(
            jax.random.fold_in(jax.random.key(self.options.seed), number)
        )
        self.progress.stage(stage.name, steps, place.step)
        unread: list[Mapping[str, jax.Array]] = []  # reading a step's metrics waits for it
        while place.step < steps:
            stepper = steppers[place.step % per_epoch // self.batches_per_epoch]
            state = self._measured(stage, per_epoch, place, state)
            given = key, self.parallel.everywhere(numbers[place.step])
            state, metrics = stepper(state, self._next_batch(), given)
            place.step += 1
            place.global_step += 1
            unread.append(metrics)
            self.progress.step(self._log_step(stage, place, unread, log))
            if self._end_step(number, per_epoch, place, state, unread, log):
                break
        place.step = place.since_best = 0
        return state

    def _measured(self, stage, per_epoch, place, state) -> TrainState:
        """Returns the state with the weights of ε measured anew, at an epoch where that is due."""
        epoch, inside = divmod(place.step, per_epoch)
        if inside or not stage.measure_every or epoch % stage.measure_every:
            return state
        weights = tuple(np.float32(loss) for loss in self.measure_radii(state.params))
        return state._replace(radius_weights=self.parallel.place(weights))

    def steps_of(self, stage: Stage) -> tuple[list[int | None], int]:
        """Returns the sweeps over the data that make an epoch, and the steps of an epoch."""
        sweeps: list[int | None] = [None]
        if stage.in_turn:
            phases = stage.recipe(self.mixture, self.threat, self.recipe_options)
            sweeps = list(range(len(phases)))
        return sweeps, self.batches_per_epoch * len(sweeps)

    def _numbers(self, stage: Stage, steps: int) -> np.ndarray:
        spread_left = self.recipe_options.spread_left
        epsilon = self.threat.epsilon
        return numbers_of(stage, steps, self.options, epsilon=epsilon, spread_left=spread_left)

    def _stepper(self, stage: Stage, only_phase: int | None) -> Callable:
        o = self.options
        make_step = functools.partial(
            make_train_step,
            self.mixture,
            stage.recipe,
            self.recipe_options,
            self.threat,
            self.optimizer,
            shards=self.parallel.shards(self.like.params),
            parts=o.accumulate,
            only_phase=only_phase,
            weight_perturbation=o.weight_perturbation,
            average_decay=o.average_decay,
        )
        step = scheduled(make_step, lam_rises=bool(stage.epsilon_warmup))
        return self.parallel.map_step(step, self.like)

    def _next_batch(self) -> Batch:
        parts = self.parallel.local_count * self.options.accumulate
        return self.parallel.shard(fill_up(next(self.batches), parts))

    def _log_step(self, stage, place, unread, log) -> dict[str, float] | None:
        """The metrics of this step where it is one to be read."""
        if place.global_step % self.options.log_every:
            return None
        shown = _read(unread, stage.name, place.global_step)
        if log is not None:
            log.write(place.global_step, {"stage": stage.name, **shown})
        return shown

    def _end_step(self, number, per_epoch, place, state, unread, log) -> bool:
        """Validates and saves where the options say so, at a stage's end, and when preempted.

        Returns whether the stage ends here.
        """
        stage, o = self.stages[number], self.options
        done, inside = divmod(place.step, per_epoch)
        last = done == stage.epochs
        preempted = self.checkpoints is not None and self.preemption.due(place.global_step)
        if inside == 0:
            judged = self.validate is not None and stage.validates and o.validate_every
            if judged and (done % o.validate_every == 0 or last):
                _read(unread, stage.name, place.global_step)
                self._judge(stage, done, place, state, log)
                last |= stage.patience is not None and place.since_best >= stage.patience
        at_epoch = inside == 0 and (done % o.checkpoint_every == 0 or last)
        at_step = o.checkpoint_steps and place.global_step % o.checkpoint_steps == 0
        if at_epoch or at_step or preempted:
            _read(unread, stage.name, place.global_step)
            self._save_latest(self._following(number, done, place, last=last), place, state)
        if preempted:
            self.checkpoints.wait()
            if not (last and number == len(self.stages) - 1):
                raise PreemptedError(f"preempted: saved at step {place.global_step}")
        return last

    def _following(self, number, done, place, *, last: bool) -> dict[str, int | bool]:
        """Returns where a run goes on that stops here."""
        ends = {"finished": last and number == len(self.stages) - 1}
        if last:
            return {"stage": number + 1, "epoch": 0, "step": 0, "since_best": 0, **ends}
        where = {"stage": number, "epoch": done, "step": place.step}
        return {**where, "since_best": place.since_best, **ends}

    def _judge(self, stage, done, place, state, log) -> None:
        validation = self.validate(state.params)
        if state.average is not None:
            validation = beside(validation, self.validate(state.average))
        known = {name: value for name, value in validation._asdict().items() if value is not None}
        entry = {f"validation/{name}": value for name, value in known.items()}
        if log is not None:
            log.write(place.global_step, {"epoch": done, "stage": stage.name} | entry)
        self.progress.epoch(done, validation)
        robust_accuracy = validation.robust_accuracy or 0.0
        score = [robust_accuracy, validation.accuracy, -validation.loss]
        if place.step < int(stage.epsilon_warmup * stage.epochs * self.steps_of(stage)[1]):
            return  # ε still rises: the start, which was never attacked, would be the best
        place.since_best += 1
        if stage.selects and (place.best is None or score > place.best):
            place.best, place.since_best = score, 0
            self._save("best", place, state, {"epoch": done, "score": score})

    def _save_latest(self, following, place, state) -> None:
        position = {
            **following,
            "global_step": place.global_step,
            "best": place.best,
            "seconds": time.monotonic() - place.began,
            "loader": self.batches.get_state(),
        }
        self._save("latest", place, state, position)

    def _save(self, which, place, state, position) -> None:
        if self.checkpoints is not None:
            whole = self.parallel.collect(state, self.like)
            self.checkpoints.begin(which, place.global_step, whole, position)


def restore_params(
    run: pathlib.Path, which: str, params: Params, options: LoopOptions, *, radii: int = 0
) -> Params:
    """Returns the params of a run's checkpoint.

    Args:
      run: its folder.
      which: "best", "latest", or "average", the latest one's moving average.
      params: of their shapes.
      options: with which the run was trained.
      radii: of its recipe's options.

    Raises:
      FileNotFoundError: the run has no such checkpoint.
      ValueError: it is of another model, or the run keeps no average.
    """
    if which == "average" and not options.average_decay:
        raise ValueError(
            f"checkpoint: average; {run} keeps none: it was trained with "
            "optimizer.average_decay = 0"
        )
    like = jax.eval_shape(lambda p: begin_state(p, options, radii), params)
    found = Checkpoints(run).restore("latest" if which == "average" else which, like)
    if found is None:
        raise FileNotFoundError(f"run.directory: {run} has no {which} checkpoint; train it first")
    state: TrainState = found[0]
    return state.average if which == "average" else state.params


def _read(unread: list[Mapping[str, jax.Array]], stage: str, step: int) -> dict[str, float]:
    """The metrics of the last step; every unread step's are checked and forgotten."""
    shown: dict[str, float] = {}
    first = step - len(unread) + 1
    for number, metrics in enumerate(unread, first):
        shown = {name: float(value.addressable_data(0)) for name, value in metrics.items()}
        for name, value in shown.items():
            if not np.isfinite(value) or (name.endswith("/finite") and value < 1):
                raise NonFiniteTrainingError(f"{stage}: {name} is not finite at step {number}")
    unread.clear()
    return {name: value for name, value in shown.items() if not name.endswith("/finite")}
