"""The numbers of attacks and of smoothing, without JAX; `attacks.settings` makes them a pytree."""

import dataclasses
import numbers
from typing import Any, NamedTuple

from jaxmoe.choices import (
    AXES,
    DIRECTIONS,
    GRADIENT_MODES,
    ITERATES,
    ROUTER_OUTPUTS,
    Axis,
    Direction,
    GradientMode,
    Iterate,
    RouterOutput,
)
from jaxmoe.options import check_number, option

Number = float | Any  # or an array, for one program of many numbers

ARRAYS = ("alpha", "temporal_alpha", "decay", "lam", "gamma1", "gamma2", "first_target")
"""The fields that are arrays to the compiler; the others are static."""


@dataclasses.dataclass(frozen=True)
class AttackSettings:
    """Numbers of an attack. The first seven are arrays to the compiler; the others are static.

    The paper did not publish λ, α, β, γ1 and γ2. The defaults come from a search on validation
    clips (`launch/studies/arsenal`); λ grows with the model's distance from robustness, so
    `jaxmoe sweep RUN --lam …` is worth a minute for another model.

    Raises:
      ValueError: a value outside its range. Arrays are checked where they are plain numbers.
    """

    alpha: Number = option(0.25, "constant step size as a share of ε", least=0)
    temporal_alpha: Number = option(
        1.0, "the same of temporal steps, before momentum divides it by two or three", least=0
    )
    decay: Number = option(0.9, "β of the temporal momentum, and μ of MI-FGSM's", least=0)
    lam: Number = option(1e-5, "λ, weight of the Lipschitz quotients", least=0)
    gamma1: Number = option(
        1.0, "γ1, weight of the guidance toward the least trusted expert", least=0
    )
    gamma2: Number = option(0.1, "γ2, weight of the router's loss in the joint attacks", least=0)
    first_target: int | Any = option(
        0, "targets that a targeted attack leaves out, from the likeliest", least=0
    )
    steps: int = option(10, "gradient steps", least=1)
    restarts: int = option(1, "random starts", least=1)
    targets: int = option(9, "wrong classes that a targeted attack aims at; K − 1 at most", least=1)
    queries: int = option(5000, "looks of a black-box attack after its first", least=1)
    square_frames: int | None = option(
        None, "frames that a square of the Square attack spans; none is all", least=1
    )
    draws: int = option(
        20, "looks at a Randomized model for a gradient of APGD, PGD, MI-FGSM or FGSM", least=1
    )
    # Their weights are a Gaussian of σ = shifts / 3, as in temporal translation's own code.
    shifts: int = option(3, "frames by which temporal translation shifts a clip at most", least=0)
    sparse_frames: int = option(4, "frames that the sparse attack changes; T at most are", least=1)
    gradient: GradientMode = option("hard", "what is seen of the mixture's gradient")
    momentum_axis: Axis = option("iterations", "along what temporal momentum accumulates")
    momentum_direction: Direction = option(
        "shorten", "the published formula shortens the steps of sensitive frames"
    )
    router_output: RouterOutput = option(
        "weights", "what the router's Lipschitz quotient compares: its softmax, or its logits"
    )
    stop_denominator: bool = option(
        False, "leave the Lipschitz quotient's denominator out of the gradient"
    )
    iterate: Iterate | None = option(
        None,
        "what PGD and its like return in training: the iterate of the greatest loss, or the last, "
        "which spares a look; none is the last of one start, and the best of several",
    )
    early_stop: bool = option(False, "Auto-PGD stops where the model has failed on a whole batch")

    @property
    def loop(self) -> dict[str, Any]:
        """The keywords of `attacks.perturb`: steps, restarts, and the iterate that is kept."""
        return {"steps": self.steps, "restarts": self.restarts, "iterate": self.iterate or "best"}

    def of_judges(self) -> "AttackSettings":
        """Returns the same without `iterate`, which is of training: who judges keeps the best."""
        return dataclasses.replace(self, iterate=None)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            least = field.metadata["least"]
            if name in ARRAYS:
                check_number(f"attack.{name}", value)
                if isinstance(value, int | float) and not 0 <= value < float("inf"):
                    raise ValueError(f"attack.{name}: {value} is not a finite number ≥ 0")
            elif least is not None and not (value is None and field.default is None):
                if not isinstance(value, numbers.Integral) or isinstance(value, bool):
                    raise ValueError(f"attack.{name}: {value!r} is not an integer")
                if value < least:
                    raise ValueError(f"attack.{name}: {value} is not at least {least}")
        _check_one_of("gradient", self.gradient, GRADIENT_MODES)
        _check_one_of("momentum_axis", self.momentum_axis, AXES)
        _check_one_of("momentum_direction", self.momentum_direction, DIRECTIONS)
        _check_one_of("router_output", self.router_output, ROUTER_OUTPUTS)
        if self.iterate is not None:
            _check_one_of("iterate", self.iterate, ITERATES)
        if self.iterate == "last" and self.restarts > 1:
            raise ValueError(
                f"attack.iterate: last is not accepted with attack.restarts = {self.restarts}; "
                "expected best: only a look tells the better of several starts"
            )


def _check_one_of(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"attack.{name}: {value!r} is not one of {', '.join(accepted)}")


class Smoothing(NamedTuple):
    """How a classifier is smoothed."""

    sigma: float = 0.25  # standard deviation of the noise, in pixel units
    selection: int = 100  # samples that choose the class
    samples: int = 10_000  # samples that bound its probability
    failure: float = 1e-3  # at most this probability that a certificate does not hold
    chunk: int = 10  # samples that the model sees at once, of every example: memory grows with it
