"""The numbers of an attack, shared by all named attacks."""

import dataclasses
import functools
import numbers

import jax
from jaxtyping import Array, Float, Int

from jaxmoe.attacks.objectives import ROUTER_OUTPUTS, RouterOutput
from jaxmoe.attacks.updates import AXES, DIRECTIONS, Axis, Direction
from jaxmoe.mixture import GRADIENT_MODES, GradientMode
from jaxmoe.threat import check_number

Number = Float[Array, "*batch"] | float

_ARRAYS = ("alpha", "temporal_alpha", "decay", "lam", "gamma1", "gamma2", "first_target")
_STATIC = (
    "steps",
    "restarts",
    "targets",
    "queries",
    "square_frames",
    "draws",
    "shifts",
    "sparse_frames",
    "gradient",
    "momentum_axis",
    "momentum_direction",
    "router_output",
    "stop_denominator",
    "until_wrong",
)


_COUNTS = {
    **dict.fromkeys(("steps", "restarts", "targets", "queries", "square_frames", "draws"), 1),
    **{"sparse_frames": 1, "shifts": 0},
}


@functools.partial(jax.tree_util.register_dataclass, data_fields=_ARRAYS, meta_fields=_STATIC)
@dataclasses.dataclass(frozen=True)
class AttackSettings:
    """Numbers of an attack. The first seven are arrays to the compiler; the others are static.

    The paper did not publish λ, α, β, γ1 and γ2. The defaults come from a search on validation
    clips (`launch/studies/arsenal`); λ grows with the model's distance from robustness, so
    `jaxmoe sweep RUN --lam …` is worth a minute for another model.

    Attributes:
      alpha: constant step size as a share of ε, ≥ 0.
      temporal_alpha: the same of temporal steps, before momentum divides it by two or three.
      decay: β of the temporal momentum, and μ of MI-FGSM's.
      lam: λ, weight of the Lipschitz quotients, ≥ 0.
      gamma1: γ1, weight of the guidance toward the least trusted expert, ≥ 0.
      gamma2: γ2, weight of the router's loss in the joint attacks, ≥ 0.
      first_target: targets that a targeted attack leaves out, from the likeliest, ≥ 0.
      steps: gradient steps, ≥ 1.
      restarts: random starts, ≥ 1.
      targets: wrong classes that a targeted attack aims at, ≥ 1; K − 1 at most are.
      queries: looks of a black-box attack after its first, ≥ 1.
      square_frames: frames that a square of the Square attack spans, ≥ 1; None is all.
      draws: looks at a `Randomized` model for one gradient of APGD, PGD, MI-FGSM or FGSM, ≥ 1.
      shifts: frames by which temporal translation shifts a clip at most, each way, ≥ 0. The shifts'
        weights are a Gaussian of σ = shifts / 3, as in its authors' code.
      sparse_frames: frames that the sparse attack changes, ≥ 1; T at most are.
      gradient: what is seen of the mixture's gradient (`mixture.with_gradient`).
      momentum_axis: along what temporal momentum accumulates (`updates.temporal_momentum`).
      momentum_direction: the published formula shortens the steps of sensitive frames.
      router_output: the router's Lipschitz quotient compares its softmax `"weights"` or `"logits"`.
      until_wrong: Auto-PGD stops where the model has failed on every example of the batch.
      stop_denominator: leave the quotient's denominator out of the gradient.

    Raises:
      ValueError: a value outside its range. Arrays are checked where they are plain numbers.
    """

    alpha: Number = 0.25
    temporal_alpha: Number = 1.0
    decay: Number = 0.9
    lam: Number = 1e-5
    gamma1: Number = 1.0
    gamma2: Number = 0.1
    first_target: Int[Array, ""] | int = 0
    steps: int = 10
    restarts: int = 1
    targets: int = 9
    queries: int = 5000
    square_frames: int | None = None
    draws: int = 20
    shifts: int = 3
    sparse_frames: int = 4
    gradient: GradientMode = "hard"
    momentum_axis: Axis = "iterations"
    momentum_direction: Direction = "shorten"
    router_output: RouterOutput = "weights"
    stop_denominator: bool = False
    until_wrong: bool = False

    def __post_init__(self):
        for name in _ARRAYS:
            value = getattr(self, name)
            check_number(f"attack.{name}", value)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise ValueError(f"attack.{name}: {value} is not a finite number ≥ 0")
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if value is None and name == "square_frames":
                continue
            if not isinstance(value, numbers.Integral) or isinstance(value, bool):
                raise ValueError(f"attack.{name}: {value!r} is not an integer")
            if value < least:
                raise ValueError(f"attack.{name}: {value} is not at least {least}")
        _check_one_of("gradient", self.gradient, GRADIENT_MODES)
        _check_one_of("momentum_axis", self.momentum_axis, AXES)
        _check_one_of("momentum_direction", self.momentum_direction, DIRECTIONS)
        _check_one_of("router_output", self.router_output, ROUTER_OUTPUTS)


def _check_one_of(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"attack.{name}: {value!r} is not one of {', '.join(accepted)}")
