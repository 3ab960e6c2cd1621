"""How good a model is while it trains: clean and robust accuracy on the validation split."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import AttackSettings, pgd
from jaxmoe.mixture import Mixture
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training.step import to_float


class Validation(NamedTuple):
    """Means over the validation clips."""

    accuracy: float
    robust_accuracy: float  # under PGD with the training's threat and settings
    loss: float  # clean cross-entropy where there is no attack, else the adversarial one
    largest_load: float  # share of the clips at the busiest expert: 1 is collapse


def make_validate(
    mixture: Mixture, threat: ThreatModel, settings: AttackSettings, *, adversarial: bool
) -> Callable[[Any, Iterable[Mapping[str, np.ndarray]]], Validation]:
    """`(params, batches) -> Validation`; robust accuracy is 0 where not `adversarial`."""
    attack = pgd(mixture, threat, settings)

    @jax.jit
    def judge(params, clip, label, index, valid):
        x = to_float(clip)
        logits = mixture.apply(params, x)
        right = jnp.argmax(logits, axis=-1) == label
        chosen = jnp.argmax(mixture.route(params, x), axis=-1)
        result_logits, robust = logits, jnp.zeros_like(right)
        if adversarial:
            keys = example_keys(jax.random.key(0), index)
            result_logits = mixture.apply(params, attack(keys, params, x, label).x_adv)
            robust = right & (jnp.argmax(result_logits, axis=-1) == label)
        log_probabilities = jax.nn.log_softmax(result_logits)
        losses = -jnp.take_along_axis(log_probabilities, label[:, None], axis=-1)[:, 0]
        count = lambda values: jnp.sum(jnp.where(valid, values, 0).astype(jnp.float32))  # noqa: E731
        load = jax.vmap(lambda expert: count(chosen == expert))(jnp.arange(mixture.num_experts))
        return jnp.stack([count(right), count(robust), count(losses), count(valid)]), load

    def validate(params, batches) -> Validation:
        totals, loads = np.zeros(4), np.zeros(mixture.num_experts)
        for batch in batches:
            sums, load = judge(
                params, batch["clip"], batch["label"], batch["index"], batch["valid"]
            )
            totals += np.asarray(sums)
            loads += np.asarray(load)
        right, robust, loss, n = totals
        return Validation(right / n, robust / n, loss / n, float(loads.max() / n))

    return validate
