"""The sections of an experiment that are the same whatever it is made of."""

import dataclasses
from typing import Literal

from jaxmoe.choices import Balance, Combine, DeviceMapping, Norm
from jaxmoe.options import option

Specialize = Literal["clusters", "likelihood", "own", "expert_choice", "column"]


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
    """How many experts, how many of them a clip sees, and how they are kept busy."""

    experts: int = option(4, "number of experts, M", least=1)
    top_k: int = option(1, "experts that see an example; all of them is the dense mixture", least=1)
    combine: Combine = option("softmax", "how the chosen experts' outputs are weighted")
    block_size: int | None = option(None, "examples in a dispatch block; none picks one", least=1)
    balance: Balance = option("switch", "which balance loss")
    balance_weight: float = option(0.5, "of the balance loss; J-TLAT wants above 1", least=0)
    router_noise: float = option(
        0.0, "standard deviation, when experts are chosen in training; 1 / M, say", least=0
    )
    dropped_experts: int = option(
        0, "that a training example cannot be sent to, drawn anew: expert dropout", least=0
    )
    spread_left: float = option(
        1.0, "share of balance_weight and router_noise left at a stage's end", least=0, most=1
    )
    head: Literal["none", "conv"] = option("none", "after the weighted experts: with a gate alone")
    dual_weight: float | None = option(
        None,
        "α of a dual model, (1 − α) standard + α robust; none is no dual model",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class ThreatConfig:
    """The threat model of training."""

    norm: Norm = option("linf", "norm of the perturbation of a whole clip")
    epsilon: float = option(8 / 255, "in pixel units")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a one-cycle or constant learning rate."""

    learning_rate: float = option(2e-3, "the peak")
    weight_decay: float = option(
        1e-2, "of kernels, per unit of the learning rate; norms and biases keep theirs", least=0
    )
    schedule: Literal["one_cycle", "constant"] = option("one_cycle", "of the learning rate")
    warmup: float = option(0.2, "share of the steps in which the learning rate rises", least=0)
    gradient_clip: float = option(
        1.0, "largest norm of a gradient: the router's, and each expert's", least=0
    )
    accumulate: int = option(
        1, "parts of a device's batch, one after the other: less memory, the same update", least=1
    )
    weight_perturbation: float = option(
        0.0, "γ of AWP: size of adversarial weight changes; 5e-3, say; 0 is none", least=0
    )
    average_decay: float = option(
        0.0, "of a moving average of the params, judged beside them; 0 keeps none", least=0
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long each stage takes, and what training starts from."""

    epochs: int = option(30, "of the recipe; 0 if only clean stages are to run", least=0)
    batch_size: int = option(32, "over all devices", least=1)
    initialize_from: str | None = option(None, "a run whose latest params are the start")
    initialize_experts_from: tuple[str, ...] | None = option(
        None, "a run with one expert for each expert"
    )
    initialize_standard_from: str | None = option(
        None, "of a dual model: the standard mixture's run"
    )
    shared_epochs: int = option(
        0, "before all else, clean: one expert alone on all examples, then M copies", least=0
    )
    shared_learning_rate: float | None = option(
        None, "the peak in shared_epochs; none is optimizer.learning_rate", least=0
    )
    shared_noise: float = option(
        0.0, "relative size of the noise that tells the copies apart", least=0
    )
    specialize: Specialize = option("clusters", "how an example gets the expert that it trains")
    specialize_column: str = option(
        "domain", "of specialize = column, whose values tell the expert"
    )
    specialize_epochs: int = option(
        0, "then, clean: experts part, and the router learns which", least=0
    )
    dense_epochs: int = option(
        0, "after these, clean: every expert on every example, before routing hardens", least=0
    )
    standard_epochs: int = option(0, "before an adversarial recipe, clean: the mixture", least=0)
    epsilon_warmup: float = option(
        0.3, "share of the recipe's steps in which ε and λ rise from 0", least=0
    )
    patience: int | None = option(
        None, "validations without a better one after which the recipe stops early", least=1
    )
    label_smoothing: float = option(0.0, "share of a label given to all classes", least=0)
    route_weight: float = option(
        0.0, "of CE(r(x'), the clean route): where an attack moves a router", least=0
    )
    attacked_route: Literal["own", "clean"] = option("own", "which picks the expert that x' trains")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How training is spread over devices; a run may go on with others."""

    mapping: DeviceMapping = option(
        "mesh", "mesh is shard_map over all processes, pmap the devices of one"
    )
    expert: int = option(1, "devices over which the experts are split; divides both", least=1)
    fsdp: bool = option(False, "split params and optimizer states over the other devices")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Defaults of `jaxmoe evaluate`."""

    attacks: tuple[str, ...] | None = option(
        None, "names; none is pgd, tlga-r and j-tlga on clips, pgd, pgd-r and pgd-e on images"
    )
    measures: tuple[str, ...] | None = option(None, "measures beside accuracy, by name")
    epsilons: tuple[float, ...] = option((8 / 255,), "radii in pixel units")
    steps: int = option(10, "of an attack; training may take fewer", least=1)
    restarts: int = option(1, "random starts", least=1)
    alpha: float = option(0.25, "step size as a share of ε", least=0)
    temporal_alpha: float = option(1.0, "the same of attacks with temporal momentum", least=0)
    batch_size: int = option(32, "examples at once", least=1)
    checkpoint: Literal["best", "latest", "average"] = option(
        "best", "which params: average is the moving average of the latest"
    )
    seed: int = option(0, "of the random starts", least=0)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where a run lives and how it is kept."""

    directory: str = option("runs/unnamed", "its folder")
    seed: int = option(0, "of params, order and attacks", least=0)
    checkpoint_every: int = option(5, "epochs", least=1)
    checkpoint_steps: int = option(0, "steps, inside of epochs too; 0 is none", least=0)
    keep_latest: int = option(2, "checkpoints; the one before is there if one is damaged", least=1)
    keep_every: int | None = option(None, "steps between checkpoints that stay for good", least=1)
    validate_every: int = option(5, "epochs, on the validation split; 0 is never", least=0)
    log_every: int = option(10, "steps", least=1)
    logger: tuple[Literal["tensorboard", "wandb"], ...] | None = option(
        ("tensorboard",), "what is told metrics, figures and example clips, beside the folder"
    )
    plugins: tuple[str, ...] | None = option(
        None, "python files with data sets, experts, … of one's own, as --plugin names them"
    )
