"""What an attack is, and the two pieces every named attack is made of: a step and a loss.

An attack is a pure function of (key, params, x, y). Its constructor takes what it attacks, a
`ThreatModel` and `AttackSettings`, whose arrays may be traced: a grid of ε or λ compiles once.
"""

from collections.abc import Callable
from typing import Any, Protocol

import optax
from jaxtyping import Array, Float, Int, Key

from jaxmoe.attacks.perturb import AttackResult
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.attacks.updates import steepest_step, temporal_momentum
from jaxmoe.mixture import Mixture, with_gradient
from jaxmoe.threat import ThreatModel

Params = Any
Apply = Callable[[Params, Array], Array]
Model = Mixture | Apply


class Attack(Protocol):
    """A pure function that looks for an allowed input on which the model fails."""

    def __call__(
        self,
        key: Key[Array, "*batch"],
        params: Params,
        x: Float[Array, "batch ..."],
        y: Int[Array, "batch ..."],
    ) -> AttackResult:
        """Attacks the clean inputs `x`, pixels in [0, 1], with labels `y`.

        `key` is one key, or one for each example (`threat.example_keys`).
        """
        ...


def as_apply(model: Model, settings: AttackSettings) -> Apply:
    """`(params, x) -> logits` of a mixture, with the wanted gradient, or of any classifier.

    Raises:
      ValueError: a gradient mode other than "hard" for a model that is no mixture.
    """
    if isinstance(model, Mixture):
        return with_gradient(model, settings.gradient)
    if settings.gradient != "hard":
        raise ValueError(
            f"attack.gradient: {settings.gradient!r} needs a Mixture; expected 'hard', the one "
            f"gradient that {model!r} has"
        )
    return model


def constant_step(threat: ThreatModel, settings: AttackSettings) -> optax.GradientTransformation:
    """A step of α ε."""
    return steepest_step(threat.norm, settings.alpha * threat.epsilon)


def temporal_step(threat: ThreatModel, settings: AttackSettings) -> optax.GradientTransformation:
    """A step of α ε with temporal momentum, α being `temporal_alpha`."""
    return temporal_momentum(
        threat.norm,
        settings.temporal_alpha * threat.epsilon,
        settings.decay,
        axis=settings.momentum_axis,
        direction=settings.momentum_direction,
    )
