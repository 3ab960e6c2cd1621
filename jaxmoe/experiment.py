"""From a configuration to the things it describes: mixture, data, threat model."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from jaxmoe import data
from jaxmoe.attacks import AttackSettings
from jaxmoe.config import GATES, DataConfig, Experiment
from jaxmoe.mixture import Mixture, dual_mixture, from_gate, from_modules
from jaxmoe.models import Conv, build_expert, build_router
from jaxmoe.threat import ThreatModel


def build_modules(experiment: Experiment, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """The router and the expert of an experiment.

    Raises:
      ValueError: an impossible architecture.
    """
    expert, mixture, router = experiment.expert, experiment.mixture, experiment.router
    dtype = jnp.dtype(expert.dtype)
    names = {
        "resnet": ("depth", "width", "stage_sizes", "stem", "stem_strides", "norm"),
        "vit": ("depth", "width", "patch", "heads"),
        "deeplab": ("depth", "width", "stage_sizes", "features", "low_level", "rates", "norm"),
        "frrn": ("variant", "width", "residual_width", "norm"),
    }[expert.name]
    expert_fields = {name: getattr(expert, name) for name in names}
    router_fields = {
        "conv": {"width": router.width, "dtype": dtype},
        "simple_gate": {"hidden": router.width},
        "classwise_gate": {"hidden": router.width, "num_classes": num_classes},
    }.get(router.name, {})
    return (
        build_router(router.name, num_experts=mixture.experts, **router_fields),
        build_expert(expert.name, num_classes=num_classes, dtype=dtype, **expert_fields),
    )


def build_mixture(experiment: Experiment, num_classes: int) -> Mixture:
    """The mixture of an experiment, or its dual model.

    Raises:
      ValueError: an impossible architecture.
    """
    mixture = experiment.mixture
    if experiment.router.name in GATES:
        gate, expert = build_modules(experiment, num_classes)
        head = None
        if mixture.head == "conv":
            head = Conv(num_classes, (3, 3), use_bias=True)
        return from_gate(gate, expert, num_experts=mixture.experts, head=head)
    built = from_modules(
        *build_modules(experiment, num_classes),
        num_experts=mixture.experts,
        top_k=mixture.top_k,
        combine=mixture.combine,
        block_size=mixture.block_size,
    )
    return built if mixture.alpha is None else dual_mixture(built, built, mixture.alpha)


def build_threat(experiment: Experiment) -> ThreatModel:
    """The threat model that an experiment trains for."""
    return ThreatModel(experiment.threat.norm, experiment.threat.epsilon)


def evaluation_attacks(experiment: Experiment) -> tuple[str, ...]:
    """The attacks that an evaluation runs where nobody names any."""
    if experiment.evaluation.attacks is not None:
        return experiment.evaluation.attacks
    clips = len(experiment.data.shape) == 4
    return ("pgd", "tlga-r", "j-tlga") if clips else ("pgd", "pgd-r", "pgd-e")


def evaluation_settings(experiment: Experiment) -> AttackSettings:
    """The attacks' numbers in evaluation: those of training, but for steps and step sizes."""
    e = experiment.evaluation
    return dataclasses.replace(
        experiment.attack,
        steps=e.steps,
        restarts=e.restarts,
        alpha=e.alpha,
        temporal_alpha=e.temporal_alpha,
    )


def open_dataset(
    config: DataConfig, progress: Callable[[int, int], None] | None = None, *, trains: bool = True
) -> data.Dataset:
    """The data set of an experiment, prepared if it is not yet.

    Args:
      config: which one.
      progress: called with (clips done, clips in all) while it is prepared.
      trains: as in `load_dataset`.

    Raises:
      ValueError: a field that does not fit, or nothing usable.
      FileNotFoundError: a directory or file that is not there.
    """
    if config.name in data.RENDERED_DATASETS:
        sizes = {
            "resolution": config.resolution or config.size,
            "train_clips": config.train_clips,
            "validation_clips": config.validation_clips,
            "test_clips": config.test_clips,
        }
    else:
        sizes = {"resolution": config.resolution, "short": config.short}
    return data.load_dataset(
        config.name,
        directory=config.directory,
        manifest=config.manifest,
        subset=config.subset,
        split=config.split,
        frames=config.frames,
        stride=config.stride,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
        cache=config.cache,
        progress=progress,
        trains=trains,
        classes=config.classes,
        domains=config.domains,
        domain_cue=config.domain_cue,
        **sizes,
    )


def cropped(source: data.ClipSource, config: DataConfig) -> str | None:
    """The part of each clip or image that is evaluated, in words; None where it is all of it."""
    height, width = config.shape[-3:-1]
    stored = {(record.height, record.width) for record in source.records}
    if stored == {(height, width)}:
        return None
    most = max(stored)
    every = f"{most[1]} × {most[0]}" if len(stored) == 1 else "images of several sizes"
    return f"evaluated is the middle {width} × {height} of {every} (width × height)"


def evaluation_loader(source: data.ClipSource, config: DataConfig, batch_size: int) -> data.Loader:
    """One pass over a split, in order, centre crops, of clips frames spread over the video."""
    return data.make_loader(
        source,
        batch_size=batch_size,
        frames=config.frames,
        size=config.size,
        width=config.width,
        stride=config.stride,
        augment=False,
        shuffle=False,
        repeat=False,
        seed=0,
        workers=config.workers,
    )
