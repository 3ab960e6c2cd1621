"""Mixtures whose every answer is known: frame 0 decides the route, frame 1 the class.

u and v are the mean pixels of frames 0 and 1. The router prefers expert 0 where u > ½; expert 0
says class 0 where v > ½, expert 1 the opposite. Router weights do not scale the logits, so that
attacks on the whole see v alone, and attacks on the router u alone.
"""

import jax.numpy as jnp
import numpy as np

from jaxmoe.evaluation import Programs
from jaxmoe.mixture import from_functions

# A change of 3.5 grey levels crosses ½, one of 2 does not; the mean of 64 random ones hardly ever.
NEAR, FAR = 131, 230
PARAMS = {"router": jnp.float32(10.0), "experts": jnp.array([10.0, -10.0])}


def means(x):
    return jnp.mean(x, axis=(2, 3, 4))


def two_sides(value):
    return jnp.stack([value, -value], axis=-1)


def route(scale, x):
    return two_sides(scale * (means(x)[:, 0] - 0.5))


def expert(scale, x):
    return two_sides(scale * (means(x)[:, 1] - 0.5))


def mixture(router=route, expert=expert):
    return from_functions(router, expert, num_experts=2, combine="none")


MIXTURE = mixture()
# Compiled once for all tests that have five clips in a batch.
PROGRAMS = Programs(MIXTURE)


def plain(scale, x):
    """A classifier that is no mixture: expert 0 alone."""
    return expert(scale, x)


def clips(*levels: tuple[int, int]) -> np.ndarray:
    """Clips `[B, 2, 8, 8, 1]` of two flat frames with these grey levels."""
    frames = np.asarray(levels, np.uint8)[:, :, None, None, None]
    return np.broadcast_to(frames, (len(levels), 2, 8, 8, 1)).copy()


def batches(clip, label, batch_size=None, padding=None):
    """A factory of batches; the last is filled up with `padding`, by default its first clip."""
    batch_size = batch_size or len(clip)
    label = np.asarray(label, np.int32)

    def factory():
        for start in range(0, len(clip), batch_size):
            part, labels = clip[start : start + batch_size], label[start : start + batch_size]
            missing = batch_size - len(part)
            filler = clip[:1] if padding is None else padding
            yield {
                "clip": np.concatenate([part, *[filler] * missing]),
                "label": np.concatenate([labels, np.zeros(missing, np.int32)]),
                "index": np.minimum(np.arange(start, start + batch_size), len(clip) - 1),
                "valid": np.arange(batch_size) < len(part),
            }

    return factory
