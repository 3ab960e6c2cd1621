"""`validate`: refuses what is impossible before anything compiles."""

import dataclasses
from collections.abc import Iterable

from jaxmoe.config.experiment import Experiment
from jaxmoe.config.recipes import RecipeConfig
from jaxmoe.config.sections import MixtureConfig, TrainingConfig
from jaxmoe.data.kinds import DataConfig
from jaxmoe.options import check_ranges
from jaxmoe.overrides import check_field_types, check_types
from jaxmoe.registry import Registry
from jaxmoe.settings import AttackSettings


def validate(experiment: Experiment) -> Experiment:
    """The experiment itself, if every value is possible.

    Raises:
      ValueError: one line with the field, its value and what would be accepted.
    """
    from jaxmoe.threat import ThreatModel  # needs JAX, and help does not

    e = experiment
    check_types(e)
    ThreatModel(e.threat.norm, e.threat.epsilon)
    AttackSettings(**{f.name: getattr(e.attack, f.name) for f in dataclasses.fields(e.attack)})
    validate_data(e)
    for section in dataclasses.fields(e):
        check_ranges(section.name, getattr(e, section.name))
    _check_optimizer(e)
    _check_evaluation(e)
    _check_mixture(e)
    _check_epochs(e)
    _check_expert(e)
    _check_gate(e)
    _check_recipe(e)
    _check_dual(e)
    _check_parallel(e)
    return experiment


def validate_data(experiment: Experiment) -> Experiment:
    """The experiment itself, if every value of its data is possible, whatever the others are.

    Raises:
      ValueError: as `validate`.
    """
    check_types(experiment)
    data = experiment.data
    check_ranges("data", data)
    data.check()
    return experiment


def check_recipe(recipe: RecipeConfig, mixture: MixtureConfig) -> None:
    """Refuses fields of a recipe that are impossible, or do not fit the mixture.

    Raises:
      ValueError: one line with the field, its value and what would be accepted.
    """
    check_field_types("recipe", recipe)
    check_ranges("recipe", recipe)
    few = f"at least {recipe.needs_experts} with recipe {recipe.name}"
    _check(mixture.experts >= recipe.needs_experts, "mixture.experts", mixture.experts, few)
    most = recipe.most_experts or mixture.experts
    many = f"at most {most} with recipe {recipe.name}"
    _check(mixture.experts <= most, "mixture.experts", mixture.experts, many)
    if recipe.needs_all_experts:
        every = f"all {mixture.experts} with recipe {recipe.name}: it trains the dense net"
        _check(mixture.top_k == mixture.experts, "mixture.top_k", mixture.top_k, every)
    for name, value, expected in recipe.refusals(mixture):
        _check(False, f"recipe.{name}", value, expected)


def check_attacks(field: str, names: Iterable[str], data: DataConfig) -> None:
    """Refuses attacks in time on images, whose rows they would take for frames.

    Raises:
      ValueError: one line with the field and the attack.
    """
    from jaxmoe.attacks.registry import ATTACKS, canonical_name

    for name in map(canonical_name, names):
        if name in ATTACKS and ATTACKS[name].temporal:
            _check_frames(field, name, "attacks such as pgd", data)


def _check_frames(field: str, value: str, others: str, data: DataConfig) -> None:
    expected = f"{others}: it attacks frames, and data.name = {data.name} has images"
    _check(data.holds_clips, field, value, expected)


def _check_optimizer(e: Experiment) -> None:
    for field, value in (
        ("optimizer.warmup", e.optimizer.warmup),
        ("training.epsilon_warmup", e.training.epsilon_warmup),
    ):
        _check(0 <= value < 1, field, value, "at least 0 and below 1")
    for field, value in (
        ("optimizer.average_decay", e.optimizer.average_decay),
        ("training.label_smoothing", e.training.label_smoothing),
    ):
        _check(value < 1, field, value, "below 1")
    averaged = e.evaluation.checkpoint != "average" or e.optimizer.average_decay > 0
    expected = "best or latest, or optimizer.average_decay above 0: no average is kept"
    _check(averaged, "evaluation.checkpoint", e.evaluation.checkpoint, expected)
    patience, every = e.training.patience, e.run.validate_every
    expected = "none where run.validate_every = 0: nothing is validated"
    _check(patience is None or every > 0, "training.patience", patience, expected)
    rate, shared = e.optimizer.learning_rate, e.training.shared_learning_rate
    _check(rate > 0, "optimizer.learning_rate", rate, "above 0")
    _check(shared is None or shared > 0, "training.shared_learning_rate", shared, "above 0")


def _check_evaluation(e: Experiment) -> None:
    _check(
        e.run.validate_every > 0 or e.evaluation.checkpoint != "best",
        "run.validate_every",
        e.run.validate_every,
        "at least 1, or evaluation.checkpoint = latest: without validation nothing is the best",
    )
    _check(bool(e.evaluation.epsilons), "evaluation.epsilons", "()", "at least one ε")
    for epsilon in e.evaluation.epsilons:
        _check(0 <= epsilon < float("inf"), "evaluation.epsilons", epsilon, "finite numbers ≥ 0")
    check_attacks("evaluation.attacks", e.evaluation.attacks or (), e.data)
    if e.evaluation.measures:
        from jaxmoe.evaluation.measures.measures import find_measures

        find_measures(e.evaluation.measures)


def _check_mixture(e: Experiment) -> None:
    mixture = e.mixture
    few = f"at most mixture.experts = {mixture.experts}"
    _check(mixture.top_k <= mixture.experts, "mixture.top_k", mixture.top_k, few)
    counts_loads = mixture.balance in ("load", "v-moe") and mixture.balance_weight > 0
    _check(
        not counts_loads or mixture.top_k < mixture.experts,
        "mixture.balance",
        mixture.balance,
        "switch or importance: with top_k = experts every load is even",
    )


def _check_epochs(e: Experiment) -> None:
    """Without epochs of the recipe another stage has to train something."""
    training: TrainingConfig = e.training
    starts = training.initialize_from, training.initialize_experts_from
    before = training.specialize_epochs or training.dense_epochs
    clean = e.recipe.is_clean and before and starts == (None, None)
    expected = "at least 1; 0 only of a clean recipe, after specialize_epochs or dense_epochs"
    _check(training.epochs > 0 or clean, "training.epochs", training.epochs, expected)


def _check_expert(e: Experiment) -> None:
    expert, data = e.expert, e.data
    sees = "sees_clips" if data.holds_clips else "sees_images"
    fits = expert.labels_pixels == data.labels_pixels
    wanted = {sees: True, "labels_pixels": data.labels_pixels}
    others = f"{_with(expert.registry, **wanted)} with data.name = {data.name}"
    _check(fits, "expert.name", expert.name, others)
    what = "clips" if data.holds_clips else "images"
    _check(getattr(expert, sees), "expert.name", expert.name, f"{others}, which has {what}")
    for field, value, expected in expert.refusals(data.shape):
        _check(False, f"expert.{field}", value, expected)


def _check_gate(e: Experiment) -> None:
    mixture, gates = e.mixture, _with(e.router.registry, is_gate=True)
    if not e.router.is_gate:
        _check(mixture.head == "none", "mixture.head", mixture.head, f"none without {gates}")
        return
    with_features = _with(e.expert.registry, has_features=True)
    expected = f"{with_features}: a gate reads features"
    _check(e.expert.has_features, "expert.name", e.expert.name, expected)
    dense = mixture.top_k == mixture.experts
    _check(dense, "mixture.top_k", mixture.top_k, f"all {mixture.experts}: a gate weights all")
    _check(mixture.combine == "softmax", "mixture.combine", mixture.combine, "softmax")
    _check(
        mixture.dual_weight is None, "mixture.dual_weight", mixture.dual_weight, "none with a gate"
    )
    for field in ("router_noise", "dropped_experts"):
        value = getattr(mixture, field)
        _check(value == 0, f"mixture.{field}", value, "0 with a gate: all experts are chosen")
    apart = e.training.specialize_epochs
    _check(apart == 0, "training.specialize_epochs", apart, "0 with a gate: it reads experts")


def _check_recipe(e: Experiment) -> None:
    recipe, mixture, training = e.recipe, e.mixture, e.training
    dropped, spare = mixture.dropped_experts, mixture.experts - mixture.top_k
    expected = f"at most {spare}: mixture.top_k = {mixture.top_k} of {mixture.experts} are chosen"
    _check(dropped <= spare, "mixture.dropped_experts", dropped, expected)
    if recipe.sees_frames:
        others = _with(recipe.registry, sees_frames=False)
        _check_frames("recipe.name", recipe.name, others, e.data)
    for field, name in recipe.attacks.items():
        _check_inner_attack(f"recipe.{field}", name, e.data)
    check_recipe(recipe, mixture)
    if recipe.needs_restoration:
        restored = getattr(e.expert, "restoration", None)
        _check(bool(restored), "expert.restoration", restored, f"true with recipe {recipe.name}")
    if getattr(recipe, "radii", 0) and not e.data.has_validation:
        share, expected = (
            e.data.validation_fraction,
            f"above 0: recipe {recipe.name} measures there",
        )
        _check(share > 0, "data.validation_fraction", share, expected)
    if recipe.needs_weights:
        learns = mixture.combine == "softmax" or mixture.top_k > 1
        _check(learns, "mixture.combine", mixture.combine, "softmax: else top-1 teaches no router")
    field, sources = "training.initialize_experts_from", training.initialize_experts_from
    if recipe.keeps_experts:
        given = sources is not None or training.initialize_from is not None
        expected = f"runs of experts: recipe {recipe.name} leaves experts as they are"
        _check(given, field, None, expected)
    if sources is not None:
        _check(len(sources) == mixture.experts, field, sources, f"{mixture.experts} runs")
        both = training.initialize_from is not None
        _check(not both, field, sources, "none with training.initialize_from")
    if recipe.own_route:
        for name in ("router_noise", "dropped_experts"):
            value = getattr(mixture, name)
            _check(value == 0, f"mixture.{name}", value, f"0: recipe {recipe.name} takes none")
        route = training.attacked_route
        expected = f"own with recipe {recipe.name}"
        _check(route == "own", "training.attacked_route", route, expected)


def _check_inner_attack(field: str, name: str, data: DataConfig) -> None:
    from jaxmoe.attacks.registry import find_attack

    try:
        found = find_attack(name)
    except ValueError as error:
        raise ValueError(f"{field}: {str(error).removeprefix('attack: ')}") from None
    _check(not found.black_box and not found.restarts_inside, field, name, "one by gradients")
    check_attacks(field, [name], data)


def _check_dual(e: Experiment) -> None:
    alpha, source = e.mixture.dual_weight, e.training.initialize_standard_from
    if e.recipe.needs_dual:
        expected = f"from 0 to 1: {e.recipe.name} trains a dual model"
        _check(alpha is not None, "mixture.dual_weight", None, expected)
    field = "training.initialize_standard_from"
    _check(source is None or alpha is not None, field, source, "a dual model, mixture.dual_weight")
    trained = alpha is None or source is not None
    _check(trained, field, None, "a run: clean stages train a dual model's robust mixture alone")


def _with(registry: Registry, **capabilities: bool) -> str:
    """The names of the entries with these capabilities, for a message."""
    found = [
        name
        for name, kind in registry.items()
        if all(getattr(kind, what) == value for what, value in capabilities.items())
    ]
    return " or ".join(found) or "one of your own: none that is known fits"


def _check(holds: bool, field: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{field}: {value} is not accepted; expected {expected}")


def _check_parallel(e: Experiment) -> None:
    """How many devices there are is only known where training starts (`parallel.make_parallel`)."""
    expert, experts = e.parallel.expert, e.mixture.experts
    divisors = ", ".join(str(n) for n in range(1, experts + 1) if experts % n == 0)
    expected = f"a divisor of mixture.experts = {experts}: {divisors}"
    _check(experts % expert == 0, "parallel.expert", expert, expected)
    whole = e.router.is_gate or e.mixture.dual_weight is not None
    expected = "1 for a gate and for a dual model; parallel.fsdp splits those"
    _check(expert == 1 or not whole, "parallel.expert", expert, expected)
