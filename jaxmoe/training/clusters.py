"""Clusters of clips by how they look: a start for experts that are to part.

Axes: B = batch, N = clips, M = clusters, F = features.
"""

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FEWEST = 4096  # clips that stand for all


def appearance(x: Float[Array, "batch ... channels"]) -> Float[Array, "batch features"]:
    """Mean and standard deviation of each colour channel over a clip or image, F = 2 C."""
    axes = tuple(range(1, x.ndim - 1))
    return jnp.concatenate([jnp.mean(x, axis=axes), jnp.std(x, axis=axes)], axis=-1)


def find_centres(
    batches: Iterable[Mapping[str, np.ndarray]], clusters: int, seed: int
) -> Float[np.ndarray, "M F"]:
    """Centres of k-means on the appearance of the first `FEWEST` clips of `batches`.

    The best of ten starts by k-means++; a function of the clips and the seed alone.
    """
    from scipy.cluster.vq import kmeans2

    found, count = [], 0
    for batch in batches:
        x = batch["clip"][batch["valid"]].astype(np.float32) / 255
        found.append(np.asarray(appearance(x), np.float64))
        count += len(x)
        if count >= FEWEST:
            break
    points = np.concatenate(found)
    tries = []
    for start in range(10):
        rng = np.random.default_rng([seed, start])
        centres, place = kmeans2(points, clusters, minit="++", seed=rng)
        tries.append((float(np.square(points - centres[place]).sum()), start, centres))
    return min(tries, key=lambda one: one[:2])[2].astype(np.float32)
