"""Runs whose experts are imported: a mixture of weights of PyTorch, in a folder like any other.

Such a run counts as finished. `IMPORTED` in its folder says where its weights came from.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxmoe import data
from jaxmoe.config import EXPERTS, DataConfig, Experiment, ExpertConfig, validate
from jaxmoe.files import write_json
from jaxmoe.models.weights import Filled, Layout, fill, find_layout, make_model, read_state_dict
from jaxmoe.registry import field_names
from jaxmoe.runs.build import build_mixture
from jaxmoe.runs.folder import IMPORTED, hold_for_training, write_description
from jaxmoe.runs.run import init_params, loop_options
from jaxmoe.training import Checkpoints, adamw, copy_expert, init_state

NOISE = 0.01  # of several experts from one file, where nobody says: copies would stay copies
# Fields of an expert that decide no number, or rounding alone: the configuration's stay.
_KEPT = ("dtype", "remat")


class Imported(NamedTuple):
    """What became of the files.

    Attributes:
      run: the folder.
      experiment: with the experts that the files have.
      layout: the family of their names.
      noise: relative size of what tells copies apart.
      params: how many one expert has.
      classes: of the data.
      of_files: classes of the files' heads.
      anew: paths of an expert's variables that were drawn, not read.
      left_out: names of tensors that have no place.
    """

    run: pathlib.Path
    experiment: Experiment
    layout: Layout
    noise: float
    params: int
    classes: int
    of_files: int
    anew: tuple[str, ...]
    left_out: tuple[str, ...]


def import_weights(
    files: Sequence[pathlib.Path],
    configure: Callable[[ExpertConfig], Experiment],
    *,
    layout: str | None = None,
    noise: float | None = None,
    new_head: bool = False,
    data_progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Writes a run's folder whose experts have the weights of state dicts, and a fresh router.

    Args:
      files: one for all experts, or one for each.
      configure: the experiment with this architecture, whose `run.directory` is the folder.
      layout: of `jaxmoe.models.weights.LAYOUTS`; None recognises it.
      noise: relative size of the noise that tells apart experts of one file, drawn from the run's
        seed; None is `NOISE` of several experts and 0 of one.
      new_head: whether heads are drawn anew even if they have as many classes as the data.
      data_progress: called with (examples done, examples in all) where they are prepared.

    Raises:
      FileNotFoundError: a file or the data is not there.
      ValueError: a file that is refused, an impossible configuration, or a folder that holds a run;
        one line.
    """
    tensors = [read_state_dict(file) for file in files]
    chosen = find_layout(tensors[0], files[0], layout)
    model = make_model(chosen, tensors[0], files[0])
    experiment = _judged_by_latest(configure(expert_of(model)))
    _check_inputs(chosen, chosen.example(tensors[0]), experiment.data)
    if experiment.mixture.dual_weight is not None:
        raise ValueError(
            f"mixture.dual_weight: {experiment.mixture.dual_weight} is not accepted; expected "
            "none: import a mixture, from which a dual model can start"
        )
    validate(experiment)
    experts = experiment.mixture.experts
    noise = _noise_of(noise, len(files), experts)
    run = pathlib.Path(experiment.run.directory)
    if (run / "config.json").exists() or (run / "checkpoints").exists():
        raise ValueError(f"run.directory: {run} holds a run; choose another directory")
    dataset = data.load_dataset(experiment.data, progress=data_progress)
    params = init_params(experiment, build_mixture(experiment, len(dataset.classes)))
    filled = []
    for number, (file, found) in enumerate(zip(files, tensors, strict=True)):
        drawn = jax.tree.map(lambda leaf, n=number: np.asarray(leaf[n]), params["experts"])
        filled.append(_fill(file, chosen, found, drawn, new_head=new_head))
    params = _with_experts(params, filled, experts, noise, experiment.run.seed)
    described = {
        "files": [{"path": str(file), "sha256": _digest(file)} for file in files],
        "layout": chosen.name,
        "noise": noise,
        "drawn_anew": list(filled[0].anew),
        "left_out": list(filled[0].left_out),
    }
    _write(run, experiment, dataset, params, described)
    return Imported(
        run,
        experiment,
        chosen,
        noise,
        sum(leaf.size for leaf in jax.tree.leaves(filled[0].variables["params"])),
        len(dataset.classes),
        model.num_classes,
        filled[0].anew,
        filled[0].left_out,
    )


def expert_of(model: nn.Module) -> ExpertConfig:
    """Returns the configuration that builds a network.

    Raises:
      ValueError: none does.
    """
    for kind in EXPERTS.values():
        if getattr(kind, "module", None) != type(model).__name__:
            continue
        names = [name for name in field_names(kind) if name not in _KEPT]
        config = kind(**{name: getattr(model, name) for name in names})
        if config.build(model.num_classes) == model:
            return config
    raise ValueError(
        f"expert: none builds this {type(model).__name__}; jaxmoe.models.weights.read gives it"
    )


def _check_inputs(layout: Layout, example: tuple[int, ...], given: DataConfig) -> None:
    """Refuses data whose examples the network cannot take, before any are prepared."""
    takes_clips = len(example) == 4
    if takes_clips != given.holds_clips:
        kinds, such_as = ("images", "clips"), ("image_folder", "video_folder")
        wanted = kinds[takes_clips]
        raise ValueError(
            f"data: {given.name} holds {kinds[not takes_clips]}, and FILE is a network of {wanted} "
            f"({layout.title}); expected data of {wanted}, such as --data {such_as[takes_clips]}"
        )
    own, given = example[-3:-1], given.shape[-3:-1]
    if layout.one_size and own != given:
        raise ValueError(
            f"data.height: {given[0]} (width {given[1]}) is not accepted; expected {own[0]} "
            f"(width {own[1]}), of which FILE has the positions"
        )


def _noise_of(noise: float | None, files: int, experts: int) -> float:
    if files not in (1, experts):
        raise ValueError(
            f"FILE: {files} files for mixture.experts = {experts}; expected one, or one for each"
        )
    one_each = files == experts
    if one_each and noise:
        raise ValueError(f"--noise: {noise:g} is not accepted; expected 0: each expert has a file")
    if noise is None:
        return 0.0 if one_each else NOISE
    if not 0 <= noise < float("inf"):
        raise ValueError(f"--noise: {noise:g} is not accepted; expected a finite number ≥ 0")
    return noise


def _judged_by_latest(experiment: Experiment) -> Experiment:
    """The experiment, whose one checkpoint evaluations take: no validation picked a best one."""
    evaluation = dataclasses.replace(experiment.evaluation, checkpoint="latest")
    return dataclasses.replace(experiment, evaluation=evaluation)


def _fill(file: pathlib.Path, layout: Layout, tensors: Any, like: Any, *, new_head: bool) -> Filled:
    try:
        return fill(layout, tensors, like, new_head=new_head)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _with_experts(params: Any, filled: list[Filled], experts: int, noise: float, seed: int) -> Any:
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(each.variables for each in filled))
    if len(filled) == experts:
        return {**params, "experts": stacked}
    shapes = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (experts, *leaf.shape[1:])), stacked)
    key = jax.random.fold_in(jax.random.key(seed), experts)
    return jax.jit(copy_expert(noise))(key, {**params, "experts": shapes})


def _write(
    run: pathlib.Path,
    experiment: Experiment,
    dataset: data.Dataset,
    params: Any,
    described: dict[str, Any],
) -> None:
    options = loop_options(experiment)
    state = init_state(params, adamw(options.weight_decay, options.gradient_clip))
    run.mkdir(parents=True, exist_ok=True)
    with hold_for_training(run):
        # The configuration comes last: a folder without one is no run.
        position = {"finished": True, "global_step": 0, "seconds": 0.0}
        Checkpoints(run).save("latest", 0, state, position)
        write_json(run / IMPORTED, described)
        write_description(run, experiment, dataset)


def _digest(file: pathlib.Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
