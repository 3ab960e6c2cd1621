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

MeasureRadii = Callable[[Any], Sequence[float]]
"""`placed params -> R losses`."""


def shares(radii: int) -> Float[np.ndarray, " radii"]:
    """Returns R shares of ε, evenly spaced from 0 to 1."""
    return np.linspace(0, 1, radii, dtype=np.float32)


def draw_share(key: Key[Array, ""], weights: Sequence[Array]) -> Float[Array, ""]:
    """Returns one of the shares of ε, drawn in proportion to these weights."""
    logits = jnp.log(jnp.stack(list(weights)))
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

    Args:
      mixture: what is measured; with split experts as `shard_experts` gives it.
      threat: its ε is the largest radius.
      settings: of PGD.
      parallel: the devices.
      params: of the shapes that it will be called with.
      radii: R.
    """
    shards = parallel.shards(params)

    def measure(params, batch: Batch, key):
        params = shards.gather(params)
        x, label = to_pixels(batch.clip), batch.label
        keys = example_keys(key, batch.index)

        def one(share):
            here = ThreatModel(threat.norm, threat.epsilon * share, threat.bounds, threat.frames)
            result = pgd(mixture, here, settings)(keys, params, x, label)
            return cross_entropy(mixture.apply(params, result.x_adv), label)

        losses = jax.lax.map(one, jnp.asarray(shares(radii)))
        return batch.valid, losses.T

    mapped = parallel.map_examples(measure, params)

    def run(params, batches) -> list[float]:
        found = []
        for batch in batches:
            part = Batch(batch["clip"], batch["label"], batch["index"], batch["valid"])
            key = parallel.everywhere(jax.random.key(0))
            valid, losses = parallel.join(mapped(params, parallel.shard(part), key))
            found.append(losses[valid].astype(float))
        return np.concatenate(found).mean(axis=0).tolist()

    return run
