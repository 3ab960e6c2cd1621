"""One run, from a configuration to a trained model in a folder, and back from the folder.

A run's folder holds `config.json`, `run.json` (versions, seed, git revision, command),
`metrics.jsonl`, `tensorboard/`, `checkpoints/` and, once evaluated, `results.*`.
"""

import contextlib
import dataclasses
import importlib.metadata
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmoe import data, plugins
from jaxmoe.config import Experiment, to_dict, validate
from jaxmoe.files import code_digest
from jaxmoe.mixture import Mixture, with_dual_weight
from jaxmoe.parallel import Parallel, hosts, make_parallel
from jaxmoe.registry import field_names, with_fields
from jaxmoe.runs.build import build_mixture, build_threat, evaluation_loader
from jaxmoe.runs.folder import (
    IMPORTED,
    State,
    check_same_experiment,
    check_same_splits,
    describe_splits,
    hold_for_training,
    is_finished,
    read_experiment,
    state_of,
    write_description,
)
from jaxmoe.runs.other_clips import OtherClips, open_clips
from jaxmoe.runs.stages import stages_of
from jaxmoe.training import (
    PARTS,
    Checkpoints,
    LoopOptions,
    Progress,
    RecipeOptions,
    fit,
    make_measure_radii,
    make_validate,
    restore_params,
    split_experts,
)
from jaxmoe.training.loggers import check_loggers
from jaxmoe.training.radii import MeasureRadii


class Trained(NamedTuple):
    """A run that was read back."""

    experiment: Experiment
    dataset: data.Dataset
    mixture: Mixture
    params: Any
    state: State  # "finished", or "training" or "stopped" before the end of its training
    other: OtherClips | None = None  # of a test split that is not its own

    def _repr_html_(self) -> str:
        """Describes it in a notebook."""
        from jaxmoe.reporting.notebook import run_html

        return run_html(self)

    @property
    def finished(self) -> bool:
        """Returns whether it was trained to its end."""
        return self.state == "finished"


def train(
    experiment: Experiment,
    progress: Progress,
    *,
    data_progress: Callable[[int, int], None] | None = None,
    devices: list[jax.Device] | None = None,
) -> pathlib.Path:
    """Trains an experiment into its run's folder, which it returns; resumes one that was stopped.

    Raises:
      ValueError: an impossible configuration, a folder that holds another experiment or that
        another process trains in, or a checkpoint that is damaged.
      FileNotFoundError: a directory or checkpoint that is not there.
      OSError: the folder cannot be written; its last checkpoint is kept.
    """
    validate(experiment)
    check_loggers(experiment.run.logger or ())
    _check_found_again(experiment)
    run = pathlib.Path(experiment.run.directory)
    if (run / IMPORTED).is_file():
        raise ValueError(
            f"run.directory: {run} holds imported weights; expected another directory, and "
            f"--training.initialize-from {run}"
        )
    check_same_experiment(run, experiment)
    _check_same_on_all_processes(experiment)
    dataset = hosts.first(lambda: data.load_dataset(experiment.data, progress=data_progress))
    hosts.agree("the data", describe_splits(dataset))
    check_same_splits(run, dataset, "run.directory", "choose another directory")
    parallel = make_parallel(devices, **dataclasses.asdict(experiment.parallel))
    _check_splits_over(parallel, experiment)
    loader = _training_batches(experiment, dataset)
    mixture = build_mixture(experiment, len(dataset.classes))
    threat = build_threat(experiment)
    stages = stages_of(experiment, dataset)
    params = _initial_params(experiment, mixture, dataset)
    phases = experiment.recipe.phases(mixture, threat, recipe_options(experiment))
    adversarial = any(phase.attack is not None for phase in phases)
    judge = make_validate(
        split_experts(mixture, parallel),
        threat,
        experiment.attack,
        parallel,
        jax.eval_shape(lambda: params),
        adversarial=adversarial,
    )
    validation = _validation_batches(experiment, dataset, parallel)
    with hold_for_training(run), contextlib.closing(iter(loader)) as batches:
        finished = is_finished(run)
        if hosts.is_first() and not finished:
            write_description(run, experiment, dataset)
        fit(
            mixture,
            params,
            stages,
            batches,
            loader.batches_per_epoch,
            threat=threat,
            options=loop_options(experiment),
            recipe_options=recipe_options(experiment),
            run=run,
            validate=lambda params: judge(params, validation),
            measure_radii=_measure_radii(experiment, mixture, params, validation, parallel),
            parallel=parallel,
            progress=progress,
        )
    return run


def _measure_radii(
    experiment: Experiment,
    mixture: Mixture,
    params: Any,
    validation: data.Loader,
    parallel: Parallel,
) -> MeasureRadii | None:
    """Returns what measures the losses by which a recipe draws ε, if it does."""
    radii = recipe_options(experiment).radii
    if not radii:
        return None
    measure = make_measure_radii(
        split_experts(mixture, parallel),
        build_threat(experiment),
        experiment.attack,
        parallel,
        jax.eval_shape(lambda: params),
        radii,
    )
    return lambda params: measure(params, validation)


def _check_same_on_all_processes(experiment: Experiment) -> None:
    """Refuses processes of one run that were given other configurations, or run other code."""
    elsewhere = {"data.directory", "data.manifest", "data.cache", "run.plugins"}
    fields = {
        f"{section}.{name}": value
        for section, values in to_dict(experiment).items()
        for name, value in values.items()
        if f"{section}.{name}" not in elsewhere
    }
    hosts.agree("the configuration", fields)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    hosts.agree("the code", {"jaxmoe": code_digest()[:16], **versions})


def _check_found_again(experiment: Experiment) -> None:
    """Refuses things of one's own that nothing would find when the run is read back."""
    for section in dataclasses.fields(experiment):
        kind = type(getattr(experiment, section.name))
        if not kind.__module__.startswith(("jaxmoe.", plugins.PREFIX)):
            raise ValueError(
                f"{section.name}: {kind.__name__} is made in {kind.__module__}, where no later "
                "command finds it; expected it in a file that --plugin or load_plugins names"
            )


def load(
    run: pathlib.Path,
    checkpoint: str | None = None,
    *,
    data_progress: Callable[[int, int], None] | None = None,
    **data_fields: Any,
) -> Trained:
    """Reads a run back: its experiment, data, mixture and params.

    Args:
      run: the folder.
      checkpoint: "best", "latest" or "average"; None is what the experiment's evaluation says.
      data_progress: called with (clips done, clips in all) where they are prepared anew.
      **data_fields: fields of `DataConfig` to replace: of a directory that has moved, or of other
        clips to judge the run by (`open_clips`).

    Raises:
      FileNotFoundError: no run there, no data, or no checkpoint yet.
      ValueError: a checkpoint of another model or a damaged one, or data whose splits are not the
        run's.
    """
    experiment = read_experiment(run)
    dataset, other = open_clips(run, experiment, data_fields, data_progress)
    replaced = with_fields(experiment.data, data_fields)
    experiment = dataclasses.replace(experiment, data=replaced)
    mixture = build_mixture(experiment, len(dataset.classes))
    like = jax.eval_shape(lambda: init_params(experiment, mixture))
    which = checkpoint or experiment.evaluation.checkpoint
    # Once: NumPy arrays would go to the device anew in every call of every program.
    radii = recipe_options(experiment).radii
    params = restore_params(run, which, like, loop_options(experiment), radii=radii)
    return Trained(experiment, dataset, mixture, params, state_of(run), other)


def init_params(experiment: Experiment, mixture: Mixture) -> Any:
    """Fresh params, drawn from the run's seed.

    From an `rbg` key: on CPU every Threefry draw of another shape costs a second to compile.
    """
    example = np.zeros((1, *experiment.data.shape), np.float32)
    return jax.jit(mixture.init)(jax.random.key(experiment.run.seed, impl="rbg"), example)


def loop_options(experiment: Experiment) -> LoopOptions:
    """The loop's numbers from the configuration's sections."""
    run = {
        f: getattr(experiment.run, f)
        for f in (
            "seed",
            "checkpoint_every",
            "checkpoint_steps",
            "keep_latest",
            "keep_every",
            "validate_every",
            "log_every",
            "logger",
        )
    }
    return LoopOptions(**dataclasses.asdict(experiment.optimizer), **run)


def recipe_options(experiment: Experiment) -> RecipeOptions:
    """The recipes' numbers from the configuration's sections."""
    common = RecipeOptions(
        attack=experiment.attack,
        balance=experiment.mixture.balance,
        balance_weight=experiment.mixture.balance_weight,
        router_noise=experiment.mixture.router_noise,
        dropped_experts=experiment.mixture.dropped_experts,
        spread_left=experiment.mixture.spread_left,
        label_smoothing=experiment.training.label_smoothing,
        route_weight=experiment.training.route_weight,
        attacked_route=experiment.training.attacked_route,
    )
    return experiment.recipe.fill(common)


def _check_splits_over(parallel: Parallel, experiment: Experiment) -> None:
    """Refuses a batch that does not split evenly over the devices and into its parts."""
    batch_size, parts = experiment.training.batch_size, experiment.optimizer.accumulate
    share, rest = divmod(batch_size, parallel.count)
    if rest:
        raise ValueError(
            f"training.batch_size: {batch_size} does not split over {parallel.count} devices"
        )
    if share % parts:
        raise ValueError(
            f"optimizer.accumulate: {parts} does not divide the {share} examples of a device, "
            f"training.batch_size = {batch_size} over {parallel.count}"
        )


def _training_batches(experiment: Experiment, dataset: data.Dataset) -> data.Loader:
    """This process's share of the training examples, shuffled and augmented, without an end."""
    return data.make_loader(
        dataset.train,
        batch_size=experiment.training.batch_size // jax.process_count(),
        frames=experiment.data.frames,
        height=experiment.data.height,
        width=experiment.data.width,
        stride=experiment.data.stride,
        augmentation=experiment.data.augmentation,
        shuffle=True,
        repeat=True,
        seed=experiment.run.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=experiment.data.workers,
    )


def _validation_batches(
    experiment: Experiment, dataset: data.Dataset, parallel: Parallel
) -> data.Loader:
    """The validation clips, as many at once for each device as it trains on, or fewer.

    It holds the training state meanwhile.
    """
    here, clips = parallel.local_count, dataset.validation
    share = min(experiment.training.batch_size // parallel.count, -(-len(clips) // here))
    processes = jax.process_index(), jax.process_count()
    return evaluation_loader(clips, experiment.data, here * share, *processes)


def _initial_params(experiment: Experiment, mixture: Mixture, dataset: data.Dataset) -> Any:
    """Fresh params, or those of the runs that training starts from."""
    params = init_params(experiment, mixture)
    if Checkpoints(pathlib.Path(experiment.run.directory)).has("latest"):
        return params  # resumed from there: the source may be gone
    t = experiment.training
    if t.initialize_from is not None:
        params = {**params, **_params_of(t.initialize_from, params, dataset, "initialize_from")}
    if t.initialize_experts_from is not None:
        found = [_expert_of(source, experiment, dataset) for source in t.initialize_experts_from]
        experts = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
        params = {**params, "experts": experts}
    if t.initialize_standard_from is not None:
        field = "initialize_standard_from"
        source = _params_of(t.initialize_standard_from, params["standard"], dataset, field)
        params = {**params, "standard": source}
    alpha = experiment.mixture.dual_weight
    return params if alpha is None else with_dual_weight(params, alpha)


def _expert_of(run: str, experiment: Experiment, dataset: data.Dataset) -> Any:
    """The latest params of the one expert of a run, which may have trained on a subset."""
    field = "initialize_experts_from"
    other = _experiment_of(run, field)
    if other.mixture.experts != 1:
        raise ValueError(
            f"training.{field}: {run} has {other.mixture.experts} experts; expected a run of one"
        )
    for part in ("name", *field_names(type(experiment.expert))):
        own, wanted = getattr(other.expert, part), getattr(experiment.expert, part)
        if own != wanted and part != "dtype":
            raise ValueError(
                f"training.{field}: {run} has expert.{part} = {own}; expected {wanted}"
            )
    if other.data.name != experiment.data.name:
        raise ValueError(
            f"training.{field}: {run} was trained on {other.data.name}; expected "
            f"{experiment.data.name}"
        )
    mixture = build_mixture(other, len(dataset.classes))
    like = jax.eval_shape(lambda: init_params(other, mixture))
    return _params_of(run, like, dataset, field, splits=("validation", "test"))["experts"]


def _experiment_of(run: str, field: str) -> Experiment:
    """The experiment of a run that training starts from."""
    if not (pathlib.Path(run) / "config.json").is_file():
        raise FileNotFoundError(f"training.{field}: no run in {run}; expected one that was trained")
    return read_experiment(pathlib.Path(run))


def _params_of(
    run: str, like: Any, dataset: data.Dataset, field: str, splits: Sequence[str] = data.SPLITS
) -> Any:
    """The latest params of a finished run, those of its parts that `like` has."""
    source, other = pathlib.Path(run), _experiment_of(run, field)
    if other.data.name == dataset.name:
        # A start that learned from test or validation clips would make both worthless.
        advice = "expected a run on the same examples"
        check_same_splits(source, dataset, f"training.{field}", advice, splits)
    state = state_of(source)
    if state != "finished":
        advice = "it is still training; wait" if state == "training" else "train it first"
        raise ValueError(f"training.{field}: {source} is not trained to its end; {advice}")
    whole = other.mixture.dual_weight is not None or other.mixture.head != "none"
    parts = set(like) if whole else PARTS
    wanted = {part: like[part] for part in parts}
    radii = recipe_options(other).radii
    return restore_params(source, "latest", wanted, loop_options(other), radii=radii)
