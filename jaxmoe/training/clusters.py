"""Clusters of clips by how they look: a start for experts that are to part.

Axes: B = batch, N = clips, M = clusters, F = features.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

MOST = 4096  # clips that stand for all


def appearance(x: Float[Array, "batch ... channels"]) -> Float[Array, "batch features"]:
    """Returns mean and standard deviation of each colour channel over a clip or image, F = 2 C."""
    axes = tuple(range(1, x.ndim - 1))
    return jnp.concatenate([jnp.mean(x, axis=axes), jnp.std(x, axis=axes)], axis=-1)


def draw_records(records: Sequence[Any], seed: int) -> list[Any]:
    """Returns at most `MOST` records, drawn from all of them: files lie class by class."""
    if len(records) <= MOST:
        return list(records)
    drawn = np.random.default_rng(seed).choice(len(records), MOST, replace=False)
    return [records[i] for i in np.sort(drawn)]


def find_centres(
    batches: Iterable[Mapping[str, np.ndarray]], clusters: int, seed: int
) -> Float[np.ndarray, "M F"]:
    """Returns centres of k-means on the appearance of all clips of `batches`.

    They are the best of ten starts by k-means++, and depend on the clips and the seed alone.
    """
    from scipy.cluster.vq import kmeans2

    clips = (batch["clip"][batch["valid"]].astype(np.float32) / 255 for batch in batches)
    points = np.concatenate([np.asarray(appearance(x), np.float64) for x in clips])
    tries = []
    for start in range(10):
        rng = np.random.default_rng([seed, start])
        centres, place = kmeans2(points, clusters, minit="++", seed=rng)
        tries.append((float(np.square(points - centres[place]).sum()), start, centres))
    return min(tries, key=lambda one: one[:2])[2].astype(np.float32)
