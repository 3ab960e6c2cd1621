"""The type of an attack, and the two pieces every named attack is made of: a step and a loss.

An attack is a pure function of (key, params, x, y). Its constructor takes what it attacks, a
`ThreatModel` and `AttackSettings`, whose arrays may be traced: a grid of ε or λ compiles once.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax.errors import TraceContextError
from jaxtyping import Array, Float, Int, Key

from jaxmoe.attacks.edge import channels_last, widest
from jaxmoe.attacks.expectation import Expectation
from jaxmoe.attacks.perturb import AttackResult, Objective
from jaxmoe.attacks.randomized import SCORING, Randomized, draw
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.attacks.updates import steepest_step, temporal_momentum
from jaxmoe.mixture import Mixture, with_gradient
from jaxmoe.models import fast_convolutions
from jaxmoe.threat import ThreatModel

Params = Any
Apply = Callable[[Params, Array], Array]
Model = Mixture | Randomized | Apply


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

    Of a randomized one it is the first draw.

    Raises:
      ValueError: a gradient mode other than "hard" for a model that is no mixture.
    """
    if isinstance(model, Mixture):
        return _checked(with_gradient(model, settings.gradient))
    if settings.gradient != "hard":
        raise ValueError(
            f"attack.gradient: {settings.gradient!r} needs a Mixture; expected 'hard', the one "
            f"gradient that {model!r} has"
        )
    return _checked(_plain(model, 0))


def scored_apply(model: Model) -> Apply:
    """`(params, x) -> logits` that scores are made of: hard routing, noise no attack has seen."""
    if isinstance(model, Mixture):
        return _checked(model.apply)
    return _checked(_plain(model, SCORING))


def _plain(model: Randomized | Apply, number: int) -> Apply:
    """A classifier that is no mixture, fast in loops on CPU; of a randomized one a draw."""
    if isinstance(model, Randomized):
        return draw(model, number)
    _check_signature(model)
    return fast_convolutions(model)


def _checked(apply: Apply) -> Apply:
    """The same with logits that are checked where they are traced, and as wide as the pixels."""

    def checked(params, x):
        try:
            logits = apply(params, x)
        except _UNTRACEABLE as error:
            raise ValueError(
                f"model: cannot be traced by JAX ({type(error).__name__}: "
                f"{str(error).partition(chr(10))[0]}); expected a pure function of jax.numpy, "
                "without NumPy, float(), if or state that depends on params or pixels"
            ) from error
        except Exception as error:
            if hint := channels_last(x.shape):
                raise ValueError(
                    f"model: cannot take inputs of shape {list(x.shape)}, which look "
                    f"channels-first; expected {hint} ({type(error).__name__}: "
                    f"{str(error).partition(chr(10))[0]})"
                ) from error
            if not isinstance(error, TypeError) or "dtype" not in str(error):
                raise
            raise ValueError(
                f"model: {str(error).partition(chr(10))[0]} It is given pixels of {x.dtype}; "
                "expected a model that takes these, such as lambda params, x: "
                "model(params, x.astype(jnp.bfloat16))"
            ) from error
        return checked_logits(logits, x)

    return checked


def checked_logits(logits: Array, x: Array) -> Float[Array, "batch ..."]:
    """Logits for inputs `x`, checked where they are traced, as wide as `x` and float32 at least.

    Raises:
      ValueError: what are no logits, or one for each input.
    """
    shape, dtype = getattr(logits, "shape", ()), getattr(logits, "dtype", type(logits).__name__)
    floats = shape and jnp.issubdtype(dtype, jnp.floating)
    if not (floats and len(shape) > 1 and shape[0] == len(x)):
        raise ValueError(
            f"model: an output of {dtype}{list(shape) or ''} for inputs of shape "
            f"{list(x.shape)}; expected logits, floats of shape [{len(x)}, classes]"
        )
    if shape[-1] < 2:
        raise ValueError(
            f"model: logits of shape {list(shape)}; expected 2 classes or more. A classifier "
            "with one logit z has jnp.concatenate([jnp.zeros_like(z), z], axis=-1)"
        )
    return logits.astype(widest(dtype, x.dtype))


# What JAX and Flax raise where a function looks at values that are not known yet, or keeps them.
_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.UnexpectedTracerError,
    jax.errors.NonConcreteBooleanIndexError,
    TraceContextError,
)


def _check_signature(model: Apply) -> None:
    """Refuses what does not take (params, x)."""
    takes = "cannot be called"
    if callable(model):
        try:
            signature = inspect.signature(model)
        except (TypeError, ValueError):
            return  # written in C, or by someone who hides it
        if _takes_two(signature):
            return
        takes = f"takes {signature}"
    raise ValueError(
        f"model: {getattr(model, '__name__', type(model).__name__)} {takes}; expected a function "
        "(params, x) -> logits, such as lambda params, x: model(x) with None as params, or "
        "model.apply of a Linen module"
    )


def _takes_two(signature: inspect.Signature) -> bool:
    """Whether it takes params and inputs; `(x, train=False)` would take the params for `x`."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    places = [each for each in signature.parameters.values() if each.kind in kinds]
    if len(places) > 1 and places[1].default is not inspect.Parameter.empty:
        return False
    try:
        signature.bind("params", "x")
    except TypeError:
        return False
    return True


def loss_of_logits(
    model: Model,
    settings: AttackSettings,
    params: Params,
    loss: Callable[[Float[Array, "batch ..."]], Float[Array, " batch"]],
) -> Objective:
    """`loss(logits)` as an objective; of a randomized model its mean over `settings.draws` looks.

    The mean is that of losses and of their gradients (expectation over transformation, Athalye et
    al. 2018, https://arxiv.org/abs/1802.00420), not of logits.
    """
    apply = as_apply(model, settings)
    if not isinstance(model, Randomized):
        return lambda x_adv: loss(apply(params, x_adv))
    weights = jnp.full(settings.draws, 1 / settings.draws)
    return Expectation(
        lambda x_adv, number: loss(_checked(draw(model, number))(params, x_adv)), weights
    )


def gradients_per_step(model: Model, settings: AttackSettings) -> int:
    """Gradients that one step of an attack on a model's logits takes."""
    return settings.draws if isinstance(model, Randomized) else 1


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
