"""Typed configuration: what an experiment is, as frozen dataclasses.

A file in `configs/` has `config()`, which returns an `Experiment`. Every field can be overridden on
the command line under its own name, `--optimizer.learning-rate 3e-4`. `validate` finds impossible
values before anything compiles; each error is one line with the field, its value and what would do.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable
from typing import Any, Literal

from jaxmoe.attacks.registry import ATTACKS, canonical_name
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.mixture.routing import Balance, Combine
from jaxmoe.overrides import check_types
from jaxmoe.threat import Norm, ThreatModel

DatasetName = Literal[
    *("synthetic_actions", "video_folder", "ucf101", "hmdb51"),
    *("synthetic_shapes", "image_folder", "npz", "cifar10", "tiny_imagenet"),
    *("synthetic_scenes", "segmentation_folder", "camvid", "cityscapes", "a2d2"),
]
RouterName = Literal["conv", "linear", "pooled", "simple_gate", "classwise_gate"]
Specialize = Literal["clusters", "likelihood", "own", "expert_choice", "column"]
GATES = ("simple_gate", "classwise_gate")
SEGMENTERS = ("deeplab", "frrn")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where clips or images come from and how they are cut."""

    name: DatasetName = "synthetic_actions"  # rendered, or from files in `directory`
    directory: str | None = None  # files; npz: the file; cifar10: its archive, else downloaded
    manifest: str | None = None  # another manifest.csv, for other splits of the same files
    subset: str | None = None  # column=value[,value] of a manifest: train on these alone
    split: int = 1  # official split of ucf101 and hmdb51, 1 to 3
    resolution: int | None = None  # shorter side of the stored frames; None is the builder's
    frames: int = 16  # of a clip; images have no axis of time
    size: int = 32  # H of a clip or image, and W
    width: int | None = None  # W where it is not H
    stride: int | None = None  # frames between two of a clip; None spreads them over the video
    flip: bool = False  # mirror training clips at random
    padding: int = 0  # black pixels around training images before a crop; 4 is usual for CIFAR
    short: Literal["pad", "skip"] = "pad"  # what becomes of a video with fewer frames than a clip
    validation_fraction: float = 0.125  # held out of train where there is no validation split
    seed: int = 0  # of the held-out clips and of synthetic ones; apart from the run's
    workers: int = 0  # loader processes; 0 is threads of this one
    cache: str | None = None  # where prepared data is kept; None is ~/.cache/jaxmoe
    train_clips: int = 1000  # of synthetic data
    validation_clips: int = 100  # of synthetic data
    test_clips: int = 200  # of synthetic data
    classes: int = 10  # of synthetic actions and shapes, from the first
    domains: int = 1  # of synthetic data, in which motions and shapes mean other classes
    domain_cue: Literal["tint", "stripes"] = "tint"  # what tells a domain; stripes are faint, 4/255

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what a model sees: `[T, H, W, 3]`, of images `[H, W, 3]`."""
        from jaxmoe.data.dataset import IMAGE_DATASETS  # takes a while, and help does not need it

        image = (self.size, self.size if self.width is None else self.width, 3)
        return image if self.name in IMAGE_DATASETS else (self.frames, *image)


@dataclasses.dataclass(frozen=True)
class ExpertConfig:
    """The architecture that every expert has."""

    name: Literal["resnet", "vit", "deeplab", "frrn"] = "resnet"  # the last two label pixels
    depth: int = 10  # resnet, deeplab: layers, 10 (one block a stage), 18 or 34; vit: blocks
    width: int = 16  # channels of the first stage; vit: of a token
    stage_sizes: tuple[int, ...] | None = None  # blocks per stage, instead of the depth's
    stem: Literal["large", "small"] = "small"  # a window of 7 and a max pool, or of 3 alone
    stem_strides: tuple[int, int, int] = (1, 2, 2)  # time, height, width; CIFAR's are 1
    norm: Literal["group", "frozen_batch"] = "group"  # frozen_batch is for imported weights
    patch: int = 4  # vit: pixels of a patch's side
    heads: int = 4  # vit: of the attention
    features: int = 64  # deeplab: channels of the pyramid and the decoder; 256 in the paper
    low_level: int = 16  # deeplab: channels that the decoder takes early; 48 in the paper
    rates: tuple[int, ...] = (2, 4, 6)  # deeplab: dilations; 6, 12, 18 in the paper
    variant: Literal["A", "B"] = "A"  # frrn: down to a 16th or a 32nd of the resolution
    residual_width: int = 16  # frrn: channels at full resolution; 32 in the paper
    dtype: Literal["float32", "bfloat16"] = "float32"  # bfloat16 rounds pixels to half a grey level


@dataclasses.dataclass(frozen=True)
class RouterConfig:
    """The router's architecture."""

    name: RouterName = "conv"  # gates read the experts' features, and their mixture is dense
    width: int = 8  # of the convolutional router, or a gate's hidden layer; 128 in its paper


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
    """How many experts, how many of them a clip sees, and how they are kept busy."""

    experts: int = 4  # M
    top_k: int = 1  # experts that see a clip; all of them is the dense mixture
    combine: Combine = "softmax"  # how the chosen experts' outputs are weighted
    block_size: int | None = None  # clips in a dispatch block; None picks one
    balance: Balance = "switch"  # which balance loss
    balance_weight: float = 0.5  # of the balance loss; J-TLAT wants above 1
    router_noise: float = 0.0  # standard deviation, when experts are chosen in training; 1 / M, say
    spread_left: float = 1.0  # share of balance_weight and router_noise left at a stage's end
    head: Literal["none", "conv"] = "none"  # after the weighted experts: with a gate alone
    alpha: float | None = None  # α of a dual model, (1 − α) standard + α robust; None: no dual


@dataclasses.dataclass(frozen=True)
class ThreatConfig:
    """The threat model of training."""

    norm: Norm = "linf"  # of the perturbation, over a clip
    epsilon: float = 8 / 255  # in pixel units


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a one-cycle or constant learning rate."""

    learning_rate: float = 2e-3  # the peak
    weight_decay: float = 1e-2
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    warmup: float = 0.2  # share of the steps in which the learning rate rises
    gradient_clip: float = 1.0  # largest norm of a part's gradient: router's and experts' each


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """What is trained, and for how long."""

    recipe: str = "standard"  # a name in RECIPES: standard, at_m, j_tlat, rt_er, …
    epochs: int = 30  # of the recipe; 0 if only clean stages are to run
    batch_size: int = 32  # over all devices
    initialize_from: str | None = None  # a run whose latest params are the start
    initialize_experts_from: tuple[str, ...] | None = None  # a run with one expert for each expert
    initialize_standard_from: str | None = None  # of a dual model: the standard mixture's run
    shared_epochs: int = 0  # before all else, clean: one expert alone on all clips, then M copies
    shared_noise: float = 0.0  # relative size of the noise that tells the copies apart
    specialize: Specialize = "clusters"  # how a clip gets the expert that learns from it
    specialize_column: str = "domain"  # of specialize = column, whose values tell the expert
    specialize_epochs: int = 0  # then, clean: experts part, and the router learns which
    dense_epochs: int = 0  # after these, clean: every expert on every clip, before routing hardens
    standard_epochs: int = 0  # before an adversarial recipe, clean: the mixture
    epsilon_warmup: float = 0.3  # share of the recipe's steps in which ε and λ rise from 0
    schedule: Literal["minibatch", "epoch"] = "minibatch"  # J-TLAT: all phases on each, or in turn
    global_attack: Literal["j-tlga", "tla-m"] = "j-tlga"  # J-TLAT's third phase
    weak_experts: int = 2  # J-TLAT's second phase
    route_weight: float = 0.0  # of CE(r(x'), the clean route): where an attack moves a router
    attacked_route: Literal["own", "clean"] = "own"  # which picks the expert that x' trains
    lam: float = 1e-4  # λ in the losses that are minimised
    beta: float = 6.0  # β of RT-ER, JTDMoE and TRADES
    expert_attack: Literal["own", "shared"] = "own"  # RT-ER, JTDMoE: what attacks an expert
    upper_moves: Literal["both", "standard"] = "both"  # JTDMoE's upper level


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What `jaxmoe evaluate` runs where the command does not say it."""

    attacks: tuple[str, ...] | None = (
        None  # pgd; and tlga-r, j-tlga on clips, pgd-r, pgd-e on images
    )
    epsilons: tuple[float, ...] = (8 / 255,)
    steps: int = 10  # of an attack; training may take fewer
    restarts: int = 1
    alpha: float = 0.25  # step size as a share of ε
    temporal_alpha: float = 1.0  # the same of attacks with temporal momentum
    batch_size: int = 32
    checkpoint: Literal["best", "latest"] = "best"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where a run lives and how it is kept."""

    directory: str = "runs/unnamed"
    seed: int = 0
    checkpoint_every: int = 5  # epochs
    evaluate_every: int = 5  # epochs, on the validation split; 0 is never
    log_every: int = 10  # steps


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides a run."""

    data: DataConfig = DataConfig()
    expert: ExpertConfig = ExpertConfig()
    router: RouterConfig = RouterConfig()
    mixture: MixtureConfig = MixtureConfig()
    threat: ThreatConfig = ThreatConfig()
    attack: AttackSettings = AttackSettings()  # inside training; λ, β and γ of evaluation too
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()


def validate(experiment: Experiment) -> Experiment:
    """The experiment itself, if every value is possible.

    Raises:
      ValueError: one line with the field, its value and what would be accepted.
    """
    e = experiment
    check_types(e)
    ThreatModel(e.threat.norm, e.threat.epsilon)
    AttackSettings(**{f.name: getattr(e.attack, f.name) for f in dataclasses.fields(e.attack)})
    validate_data(e)
    for section in dataclasses.fields(e):
        _check_numbers(e, section.name)
    for field, value in (
        ("optimizer.warmup", e.optimizer.warmup),
        ("training.epsilon_warmup", e.training.epsilon_warmup),
    ):
        _check(0 <= value < 1, field, value, "at least 0 and below 1")
    left = e.mixture.spread_left
    _check(0 <= left <= 1, "mixture.spread_left", left, "from 0 to 1")
    _check(
        e.mixture.top_k <= e.mixture.experts,
        "mixture.top_k",
        e.mixture.top_k,
        f"at most mixture.experts = {e.mixture.experts}",
    )
    counts_loads = e.mixture.balance in ("load", "v-moe") and e.mixture.balance_weight > 0
    _check(
        not counts_loads or e.mixture.top_k < e.mixture.experts,
        "mixture.balance",
        e.mixture.balance,
        "switch or importance: with top_k = experts every load is even",
    )
    # Takes a while, and help does not need it.
    from jaxmoe.training.recipes import RECIPES, TEMPORAL_RECIPES

    known = ", ".join(RECIPES)
    _check(e.training.recipe in RECIPES, "training.recipe", e.training.recipe, f"one of {known}")
    if e.training.recipe in TEMPORAL_RECIPES:
        _check_frames("training.recipe", e.training.recipe, "standard or at_m", e.data)
    if e.training.recipe == "j_tlat":
        _check(
            e.training.weak_experts <= e.mixture.experts,
            "training.weak_experts",
            e.training.weak_experts,
            f"at most mixture.experts = {e.mixture.experts}",
        )
    _check(
        e.optimizer.learning_rate > 0,
        "optimizer.learning_rate",
        e.optimizer.learning_rate,
        "above 0",
    )
    _check(
        e.run.evaluate_every > 0 or e.evaluation.checkpoint == "latest",
        "run.evaluate_every",
        e.run.evaluate_every,
        "at least 1, or evaluation.checkpoint = latest: without validation nothing is the best",
    )
    _check(bool(e.evaluation.epsilons), "evaluation.epsilons", "()", "at least one ε")
    for epsilon in e.evaluation.epsilons:
        _check(0 <= epsilon < float("inf"), "evaluation.epsilons", epsilon, "finite numbers ≥ 0")
    check_attacks("evaluation.attacks", e.evaluation.attacks or (), e.data)
    _check_epochs(e.training)
    _check_architecture(e)
    _check_gate(e)
    _check_dual(e)
    return experiment


def check_attacks(field: str, names: Iterable[str], data: DataConfig) -> None:
    """Refuses attacks in time on images, whose rows they would take for frames.

    Raises:
      ValueError: one line with the field and the attack.
    """
    for name in map(canonical_name, names):
        if name in ATTACKS and ATTACKS[name].temporal:
            _check_frames(field, name, "attacks such as pgd", data)


def _check_frames(field: str, value: str, others: str, data: DataConfig) -> None:
    expected = f"{others}: it attacks frames, and data.name = {data.name} has images"
    _check(len(data.shape) == 4, field, value, expected)


def validate_data(experiment: Experiment) -> Experiment:
    """The experiment itself, if every value of its data is possible, whatever the others are.

    Raises:
      ValueError: as `validate`.
    """
    from jaxmoe.data.dataset import RENDERED_DATASETS  # takes a while, and help does not need it

    check_types(experiment)
    _check_numbers(experiment, "data")
    data = experiment.data
    fraction = data.validation_fraction
    _check(0 <= fraction < 1, "data.validation_fraction", fraction, "at least 0 and below 1")
    mirrored = data.flip and data.domain_cue == "stripes"
    _check(not mirrored, "data.flip", data.flip, "false: mirrored stripes are another domain's")
    if data.name not in (*RENDERED_DATASETS, "cifar10"):
        given = data.directory is not None
        _check(given, "data.directory", None, "the folder or file with the data")
    return experiment


def _check_numbers(e: Experiment, section: str) -> None:
    for name in _AT_LEAST_ONE.get(section, ()):
        value = getattr(getattr(e, section), name)
        _check(value >= 1, f"{section}.{name}", value, "at least 1")
    for name in _NOT_NEGATIVE.get(section, ()):
        value = getattr(getattr(e, section), name)
        _check(0 <= value < float("inf"), f"{section}.{name}", value, "a finite number ≥ 0")


def _check_epochs(training: TrainingConfig) -> None:
    """Without epochs of the recipe another stage has to train something."""
    starts = training.initialize_from, training.initialize_experts_from
    before = training.specialize_epochs or training.dense_epochs
    clean = training.recipe == "standard" and before and starts == (None, None)
    expected = "at least 1; 0 only of recipe standard, after specialize_epochs or dense_epochs"
    _check(training.epochs > 0 or clean, "training.epochs", training.epochs, expected)


def _check_architecture(e: Experiment) -> None:
    from jaxmoe.data.dataset import SEGMENTATION_DATASETS

    field, dense = "expert.name", e.data.name in SEGMENTATION_DATASETS
    fits = (e.expert.name in SEGMENTERS) == dense
    expected = " or ".join(SEGMENTERS) if dense else "resnet or vit"
    _check(fits, field, e.expert.name, f"{expected} with data.name = {e.data.name}")
    if e.expert.name in ("resnet", "deeplab"):
        _check(e.expert.depth in (10, 18, 34), "expert.depth", e.expert.depth, "10, 18 or 34")
    if e.expert.name != "vit":
        return
    image = len(e.data.shape) == 3
    _check(image, field, "vit", f"resnet: data.name = {e.data.name} has clips, and vit sees images")
    for side in e.data.shape[-3:-1]:
        divides = side % e.expert.patch == 0
        _check(divides, "expert.patch", e.expert.patch, f"a divisor of data.size = {side}")
    divides = e.expert.width % e.expert.heads == 0
    _check(divides, "expert.heads", e.expert.heads, f"a divisor of expert.width = {e.expert.width}")


def _check_gate(e: Experiment) -> None:
    mixture, gated = e.mixture, e.router.name in GATES
    if gated:
        fits = e.expert.name in SEGMENTERS
        with_features = " or ".join(SEGMENTERS)
        _check(fits, "expert.name", e.expert.name, f"{with_features}: a gate reads features")
        dense = mixture.top_k == mixture.experts
        _check(dense, "mixture.top_k", mixture.top_k, f"all {mixture.experts}: a gate weights all")
        _check(mixture.combine == "softmax", "mixture.combine", mixture.combine, "softmax")
        _check(mixture.alpha is None, "mixture.alpha", mixture.alpha, "none with a gate")
        noise = mixture.router_noise
        _check(noise == 0, "mixture.router_noise", noise, "0 with a gate: all experts are chosen")
        apart = e.training.specialize_epochs
        _check(apart == 0, "training.specialize_epochs", apart, "0 with a gate: it reads experts")
    gates = " or ".join(GATES)
    _check(gated or mixture.head == "none", "mixture.head", mixture.head, f"none without {gates}")
    field, sources = "training.initialize_experts_from", e.training.initialize_experts_from
    if e.training.recipe == "gate":
        learns = mixture.combine == "softmax" or mixture.top_k > 1
        _check(learns, "mixture.combine", mixture.combine, "softmax: else top-1 teaches no router")
        several = mixture.experts > 1
        _check(several, "mixture.experts", mixture.experts, "at least 2: recipe gate weighs them")
        given = sources is not None or e.training.initialize_from is not None
        _check(given, field, None, "runs of experts: recipe gate leaves experts as they are")
    if sources is not None:
        _check(len(sources) == mixture.experts, field, sources, f"{mixture.experts} runs")
        both = e.training.initialize_from is not None
        _check(not both, field, sources, "none with training.initialize_from")


def _check_dual(e: Experiment) -> None:
    alpha, recipe = e.mixture.alpha, e.training.recipe
    _check(alpha is None or 0 <= alpha <= 1, "mixture.alpha", alpha, "a number from 0 to 1")
    if recipe == "jtdmoe":
        _check(alpha is not None, "mixture.alpha", None, "from 0 to 1: jtdmoe trains a dual model")
        noise = e.mixture.router_noise
        _check(noise == 0, "mixture.router_noise", noise, "0: jtdmoe's two levels take none")
        route = e.training.attacked_route
        _check(route == "own", "training.attacked_route", route, "own with jtdmoe")
    elif recipe == "rt_er":
        experts = e.mixture.experts
        _check(experts > 1, "mixture.experts", experts, "at least 2: rt_er has a second choice")
    source = e.training.initialize_standard_from
    field = "training.initialize_standard_from"
    _check(source is None or alpha is not None, field, source, "a dual model, mixture.alpha")
    trained = alpha is None or source is not None
    _check(trained, field, None, "a run: clean stages train a dual model's robust mixture alone")


_AT_LEAST_ONE = {
    "data": ("frames", "size"),
    "expert": ("width", "depth", "patch", "heads", "features", "low_level", "residual_width"),
    "router": ("width",),
    "mixture": ("experts", "top_k"),
    "training": ("batch_size", "weak_experts"),
    "evaluation": ("batch_size", "steps", "restarts"),
    "run": ("checkpoint_every", "log_every"),
}

_NOT_NEGATIVE = {
    "mixture": ("balance_weight", "router_noise"),
    "optimizer": ("weight_decay", "gradient_clip"),
    "training": (
        *("epochs", "shared_epochs", "dense_epochs", "specialize_epochs", "standard_epochs"),
        *("shared_noise", "lam", "beta", "route_weight"),
    ),
    "data": ("workers", "seed", "padding"),
    "evaluation": ("alpha", "temporal_alpha", "seed"),
    "run": ("seed", "evaluate_every"),
}


def _check(holds: bool, field: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{field}: {value} is not accepted; expected {expected}")


def to_dict(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The experiment as nested dicts that JSON can hold."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def from_dict(values: dict[str, dict[str, Any]]) -> Experiment:
    """The experiment that `to_dict` gave.

    Raises:
      ValueError: a section or field that does not exist, or a value of another type.
    """
    sections = {}
    for section in dataclasses.fields(Experiment):
        given = values.get(section.name, {})
        kind = type(section.default)
        known = {field.name for field in dataclasses.fields(kind)}
        for name in given:
            if name not in known:
                raise ValueError(f"{section.name}.{name}: no such field; {nearest(name, known)}")
        sections[section.name] = kind(
            **{n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
        )
    for name in values:
        if name not in sections:
            raise ValueError(f"{name}: no such section; {nearest(name, sections)}")
    experiment = Experiment(**sections)
    check_types(experiment)
    return experiment


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of a misspelt name."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"did you mean {found[0]}?"
