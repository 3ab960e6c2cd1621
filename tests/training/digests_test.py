"""Digests find a flipped bit, whatever the number's type and however it is split over devices."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.training.checkpoints import digests as module
from jaxmoe.training.checkpoints.digests import digests

DRAW = np.random.default_rng(0)
STATE = {
    "float32": DRAW.normal(size=(3, 4, 5)).astype(np.float32),
    "float16": DRAW.normal(size=(7,)).astype(np.float16),
    "scalar": np.int32(7),
    "bytes": DRAW.integers(0, 256, (5, 5), dtype=np.uint8),
    "flags": np.array([True, False]),
    "none": np.zeros((0, 3), np.float32),
}


def test_the_host_and_a_program_find_the_same(monkeypatch):
    on_host = digests(STATE)
    monkeypatch.setattr(module, "_ON_HOST_BELOW", 0)
    assert digests({name: jnp.asarray(leaf) for name, leaf in STATE.items()}) == on_host
    assert all(0 <= value < 2**32 for value in on_host)
    assert len(set(on_host) - {0}) == len(STATE) - 1


@pytest.mark.parametrize("name", ["float32", "float16", "bytes"])
def test_every_flipped_bit_and_every_swap_is_found(name):
    leaf = STATE[name]
    raw, own = bytearray(leaf.tobytes()), digests([leaf])
    for place in range(len(raw)):
        for bit in range(8):
            raw[place] ^= 1 << bit
            flipped = np.frombuffer(bytes(raw), leaf.dtype).reshape(leaf.shape)
            assert digests([flipped]) != own
            raw[place] ^= 1 << bit
    swapped = leaf.copy().reshape(-1)
    swapped[[0, 1]] = swapped[[1, 0]]
    assert digests([swapped.reshape(leaf.shape)]) != own
