"""Classifiers with noise of their own, such as dropout at test time, and attacks that expect it.

`Randomized(apply)` goes wherever a model goes. The noise of a look is drawn from the input's own
bits and a number, so that a look stays a pure function of (params, x): another iterate sees other
noise, a clip's noise does not depend on its neighbours, and a run can be repeated.
Axes: B = batch, N = draws.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from jaxmoe.models import fast_convolutions
from jaxmoe.threat import example_keys

SCORING = 2**31 - 1  # the draw that scores are made with: no attack has seen it


class Randomized(NamedTuple):
    """A classifier whose every look is a draw.

    Attributes:
      apply: `(params, x [1, …], key) -> [1, K]`; it is called on one example at a time, under vmap.
      seed: of the noise.
    """

    apply: Callable[[Any, Array, Key[Array, ""]], Array]
    seed: int = 0


def draw(model: Randomized, number: Array | int) -> Callable[[Any, Array], Array]:
    """`(params, x [B, …]) -> [B, K]`: the look called `number` at each input."""

    look = fast_convolutions(model.apply)

    def apply(params, x):
        key = jax.random.fold_in(jax.random.key(model.seed), number)

        def one(key, x):
            return look(params, x[None], key)[0]

        return jax.vmap(one)(example_keys(key, bits_number(x)), x)

    return apply


def bits_number(x: Float[Array, "batch ..."]) -> UInt32[Array, " batch"]:
    """A number that the bits of an example decide, another one for almost every other example."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32).reshape(len(x), -1)
    # Knuth's multiplier makes neighbouring places count differently; odd numbers lose no bit.
    place = (jnp.arange(bits.shape[1], dtype=jnp.uint32) * jnp.uint32(2654435761)) | jnp.uint32(1)
    mixed = bits ^ (bits >> 15)
    return jnp.sum(mixed * place[None], axis=1, dtype=jnp.uint32)
