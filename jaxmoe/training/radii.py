"""Adaptive ε (AAT-M): a batch's radius is drawn, more often where the loss is large.

Axes: R = radii, from 0 to ε.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxmoe.attacks import AttackSettings, cross_entropy, pgd
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.mixture import Mixture
from jaxmoe.parallel import Parallel
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training.state import Batch
from jaxmoe.training.validation import NonFiniteTrainingError

MeasureRadii = Callable[[Any], Sequence[float]]
"""`placed params -> R losses`."""


def shares(radii: int) -> Float[np.ndarray, " radii"]:
    """Returns R shares of ε, evenly spaced from 0 to 1."""
    return np.linspace(0, 1, radii, dtype=np.float32)


def draw_share(key: Key[Array, ""], weights: Sequence[Array]) -> Float[Array, ""]:
    """Returns one of the shares of ε, drawn in proportion to these weights; evenly if all are 0."""
    stacked = jnp.stack(list(weights))
    logits = jnp.log(jnp.where(jnp.any(stacked > 0), stacked, 1.0))
    return jnp.asarray(shares(len(weights)))[jax.random.categorical(key, logits)]


def make_measure_radii(
    mixture: Mixture,
    threat: ThreatModel,
    settings: AttackSettings,
    parallel: Parallel,
    params: Any,
    radii: int,
) -> Callable[[Any, Iterable[Mapping[str, np.ndarray]]], list[float]]:
    """Returns `(placed params, batches) -> R mean losses under PGD`, a radius each.

    It raises `NonFiniteTrainingError` where a loss or a gradient is not finite.

    Args:
      mixture: the one that is measured; with split experts as `shard_experts` gives it.
      threat: the threat model, whose ε is the largest radius.
      settings: PGD's.
      parallel: the devices.
      params: shapes of the params that it will be called with.
      radii: R.
    """
    shards = parallel.shards(params)

    def measure(params, batch: Batch, key):
        params = shards.gather(params)
        x, label = to_pixels(batch.clip), batch.label
        keys = example_keys(key, batch.index)

        def one(share):
            here = ThreatModel(threat.norm, threat.epsilon * share, threat.bounds, threat.frames)
            result = pgd(mixture, here, settings.of_judges())(keys, params, x, label)
            return cross_entropy(mixture.apply(params, result.x_adv), label), result.finite

        losses, finite = jax.lax.map(one, jnp.asarray(shares(radii)))
        return batch.valid, losses.T, jnp.all(finite & jnp.isfinite(losses), axis=0)

    mapped = parallel.map_examples(measure, params)

    def run(params, batches) -> list[float]:
        found = []
        for batch in batches:
            part = Batch(batch["clip"], batch["label"], batch["index"], batch["valid"])
            key = parallel.everywhere(jax.random.key(0))
            valid, losses, finite = parallel.join(mapped(params, parallel.shard(part), key))
            if not finite[valid].all():
                raise NonFiniteTrainingError("radii: a loss or gradient is not finite under PGD")
            found.append(losses[valid].astype(float))
        return np.concatenate(found).mean(axis=0).tolist()

    return run
