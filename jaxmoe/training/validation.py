"""How good a model is while it trains: clean and robust accuracy on the validation split."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import AttackSettings, cross_entropy, mean_over_labelled, pgd
from jaxmoe.mixture import Mixture
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training.step import to_float


class NonFiniteTrainingError(RuntimeError):
    """A loss, gradient or attack was not finite: the run stops instead of going on with it."""


class Validation(NamedTuple):
    """Means over the validation clips; accuracy of dense labels is that of pixels, clip by clip."""

    accuracy: float
    robust_accuracy: float | None  # under PGD as in training; None where training is clean
    loss: float  # clean cross-entropy where there is no attack, else the adversarial one
    largest_load: float  # share of the clips at the busiest expert: 1 is collapse


def make_validate(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings, *, adversarial: bool
) -> Callable[[Any, Iterable[Mapping[str, np.ndarray]]], Validation]:
    """`(params, batches) -> Validation`; no robust accuracy where not `adversarial`.

    It raises `NonFiniteTrainingError` where a loss or a gradient is not finite.
    """
    attack = pgd(mixture, threat, settings)

    @jax.jit
    def judge(params, clip, label, index, valid):
        x = to_float(clip)
        logits = mixture.apply(params, x)
        right = jnp.argmax(logits, axis=-1) == label
        first = jnp.argmax(mixture.route(params, x), axis=-1)
        chosen = jax.nn.one_hot(first, mixture.num_experts)
        chosen = jnp.mean(chosen, axis=tuple(range(1, chosen.ndim - 1)))  # over a gate's classes
        result_logits, robust, finite = logits, jnp.zeros_like(right), jnp.ones_like(valid)
        if adversarial:
            keys = example_keys(jax.random.key(0), index)
            result = attack(keys, params, x, label)
            finite = result.finite
            result_logits = mixture.apply(params, result.x_adv)
            robust = right & (jnp.argmax(result_logits, axis=-1) == label)
        losses = cross_entropy(result_logits, label)
        count = lambda values: jnp.sum(jnp.where(valid, values, 0).astype(jnp.float32))  # noqa: E731
        load = jax.vmap(count, in_axes=1)(chosen)
        finite &= jnp.isfinite(losses)
        right, robust = (mean_over_labelled(hits * 1.0, label) for hits in (right, robust))
        sums = [count(right), count(robust), count(losses), count(valid), count(~finite)]
        return jnp.stack(sums), load

    def validate(params, batches) -> Validation:
        totals, loads = np.zeros(5), np.zeros(mixture.num_experts)
        for batch in batches:
            sums, load = judge(
                params, batch["clip"], batch["label"], batch["index"], batch["valid"]
            )
            totals += np.asarray(sums)
            loads += np.asarray(load)
        right, robust, loss, n, broken = totals
        if broken:
            # A gradient that is not finite is no attack survived.
            raise NonFiniteTrainingError(
                f"validation: a loss or gradient is not finite on {broken:.0f} of {n:.0f} clips"
            )
        robust_accuracy = robust / n if adversarial else None
        return Validation(right / n, robust_accuracy, loss / n, float(loads.max() / n))

    return validate
