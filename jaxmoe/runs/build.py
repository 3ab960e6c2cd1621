"""From a configuration to the things it describes: mixture, data, threat model."""

import dataclasses

import flax.linen as nn

from jaxmoe import data
from jaxmoe.attacks import AttackSettings
from jaxmoe.config import DataConfig, Experiment
from jaxmoe.mixture import Mixture, dual_mixture, from_gate, from_modules
from jaxmoe.models import Conv
from jaxmoe.threat import ThreatModel


def build_modules(experiment: Experiment, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """The router and the expert of an experiment.

    Raises:
      ValueError: an impossible architecture.
    """
    expert, experts = experiment.expert, experiment.mixture.experts
    router = experiment.router.build(experts, num_classes, expert.dtype)
    return router, expert.build(num_classes)


def build_mixture(experiment: Experiment, num_classes: int) -> Mixture:
    """The mixture of an experiment, or its dual model.

    Raises:
      ValueError: an impossible architecture.
    """
    mixture = experiment.mixture
    router, expert = build_modules(experiment, num_classes)
    if experiment.router.is_gate:
        head = Conv(num_classes, (3, 3), use_bias=True) if mixture.head == "conv" else None
        return from_gate(router, expert, num_experts=mixture.experts, head=head)
    built = from_modules(
        router,
        expert,
        num_experts=mixture.experts,
        top_k=mixture.top_k,
        combine=mixture.combine,
        block_size=mixture.block_size,
    )
    return built if mixture.dual_weight is None else dual_mixture(built, built, mixture.dual_weight)


def build_threat(experiment: Experiment) -> ThreatModel:
    """The threat model that an experiment trains for."""
    return ThreatModel(experiment.threat.norm, experiment.threat.epsilon)


def evaluation_attacks(experiment: Experiment) -> tuple[str, ...]:
    """The attacks that an evaluation runs where nobody names any."""
    if experiment.evaluation.attacks is not None:
        return experiment.evaluation.attacks
    clips = experiment.data.holds_clips
    return ("pgd", "tlga-r", "j-tlga") if clips else ("pgd", "pgd-r", "pgd-e")


def evaluation_settings(experiment: Experiment) -> AttackSettings:
    """The attacks' numbers in evaluation: those of training, but for steps and step sizes."""
    e = experiment.evaluation
    return dataclasses.replace(
        experiment.attack.of_judges(),
        steps=e.steps,
        restarts=e.restarts,
        alpha=e.alpha,
        temporal_alpha=e.temporal_alpha,
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


def evaluation_loader(
    source: data.ClipSource,
    config: DataConfig,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> data.Loader:
    """One pass over a split, in order, centre crops, of clips frames spread over the video.

    Of several processes each may have its share of every batch, `batch_size` examples.
    """
    return data.make_loader(
        source,
        batch_size=batch_size,
        frames=config.frames,
        height=config.height,
        width=config.width,
        stride=config.stride,
        augmentation=None,
        shuffle=False,
        repeat=False,
        seed=0,
        process_index=process_index,
        process_count=process_count,
        workers=config.workers,
    )
