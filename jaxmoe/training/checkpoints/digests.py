"""Digests of a checkpoint's numbers, stored with it: what a disk flipped is found when it is read.

A digest is a sum, so it is the same however an array is split over devices.
"""

import json
import types
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_MULTIPLIER = 2654435761  # Knuth's: neighbouring places count differently
_ON_HOST_BELOW = 1 << 24  # numbers; compiling takes longer than adding so few up


def digests(state: Any) -> list[int]:
    """Returns a number from 0 to 2^32 − 1 for each leaf, which its bits and their places decide."""
    leaves = jax.tree.leaves(state)
    here = all(not isinstance(leaf, jax.Array) or leaf.is_fully_addressable for leaf in leaves)
    if here and sum(leaf.size for leaf in leaves) < _ON_HOST_BELOW:
        return [int(_digest(np.asarray(leaf), np)) for leaf in leaves]
    found = jax.jit(lambda tree: [_digest(leaf, jnp) for leaf in tree])(leaves)
    return [int(value.addressable_data(0)) for value in found]


def text_digest(values: dict[str, Any]) -> int:
    """Returns a number from 0 to 2^32 − 1, which the text of the values as JSON decides."""
    as_read = json.loads(json.dumps(values))  # where every key is text
    return zlib.crc32(json.dumps(as_read, sort_keys=True).encode())


def _digest(leaf: Any, xp: types.ModuleType) -> Any:
    """The sum, modulo 2^32, of the bits of each number times an odd number of its place."""
    if leaf.dtype == bool:
        leaf = leaf.astype("uint8")
    width = min(leaf.dtype.itemsize, 4)
    kind = f"uint{8 * width}"
    if xp is np:
        bits = np.ascontiguousarray(leaf).view(kind)
        if leaf.dtype.itemsize > 4:
            bits = bits.reshape(*leaf.shape, -1)
    else:
        bits = jax.lax.bitcast_convert_type(leaf, kind)
    place = xp.zeros([1] * bits.ndim, "uint32")
    # Not of a flat array: one that is split over devices would travel to become flat.
    for axis, size in enumerate(bits.shape):
        shape = [1] * axis + [size] + [1] * (bits.ndim - axis - 1)
        place = place * xp.uint32(size) + xp.arange(size, dtype="uint32").reshape(shape)
    with np.errstate(over="ignore"):
        weight = place * xp.uint32(_MULTIPLIER) | xp.uint32(1)
        return xp.sum(bits.astype("uint32") * weight, dtype="uint32")
