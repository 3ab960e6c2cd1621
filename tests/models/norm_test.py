"""Norms against their definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.models import FrozenBatchNorm, GroupNorm, Normalize
from tests.night import at_night


def draw(shape: tuple[int, ...], seed: int, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(12, 1), (40, 5), at_night(64, 8), at_night(7, 1), at_night(512, 32)],
)
def test_group_norm_and_its_gradient_equal_flax(channels, groups):
    x = 3.0 * draw((2, 3, 4, 5, channels), 0) + 1.0
    ours, theirs = GroupNorm(), nn.GroupNorm(groups, epsilon=1e-5)
    params = {"params": {"scale": draw((channels,), 1), "bias": draw((channels,), 2)}}
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, params
    )

    def gradients(module):
        def loss(params, x):
            y = module.apply(params, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)

    for a, b in zip(
        jax.tree.leaves(gradients(ours)), jax.tree.leaves(gradients(theirs)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_group_norm_mixes_no_clips():
    x = draw((3, 2, 4, 4, 8), 0)
    module = GroupNorm()
    params = module.init(jax.random.key(0), x)
    changed = module.apply(params, x.at[1].multiply(5.0).at[1].add(2.0))
    np.testing.assert_array_equal(module.apply(params, x)[::2], changed[::2])


def test_group_norm_keeps_bfloat16_statistics_in_float32():
    x = 1.0 + draw((1, 4, 16, 16, 8), 0, jnp.bfloat16)
    module = GroupNorm(dtype=jnp.bfloat16)
    params = module.init(jax.random.key(0), x)
    exact = GroupNorm().apply(params, x.astype(jnp.float32))
    np.testing.assert_array_equal(module.apply(params, x), exact.astype(jnp.bfloat16))


def test_frozen_batch_norm_is_the_stored_affine_map():
    x = draw((2, 3, 4, 4, 5), 0)
    module = FrozenBatchNorm()
    variables = module.init(jax.random.key(0), x)
    assert set(variables) == {"params", "batch_stats"}
    mean, variance, scale, bias = (np.random.default_rng(i).uniform(1, 2, 5) for i in range(4))
    variables = {
        "params": {"scale": jnp.float32(scale), "bias": jnp.float32(bias)},
        "batch_stats": {"mean": jnp.float32(mean), "var": jnp.float32(variance)},
    }
    expected = (np.asarray(x) - mean) / np.sqrt(variance + 1e-5) * scale + bias
    y, updates = module.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    after = updates.get("batch_stats", variables["batch_stats"])
    for name, value in variables["batch_stats"].items():
        np.testing.assert_array_equal(after[name], value)


def test_normalize_is_per_channel():
    x = jnp.full((1, 2, 2, 2, 3), 0.5)
    y = Normalize((0.5, 0.25, 0.0), (1.0, 0.25, 0.1)).apply({}, x)
    np.testing.assert_allclose(y[0, 0, 0, 0], [0.0, 1.0, 5.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std", "dtype"),
    [((0.5, 0.5), (1.0,), jnp.float32), ((0.5,), (0.0,), jnp.float32), ((0.5,), (1.0,), jnp.uint8)],
)
def test_normalize_rejects_what_it_cannot_mean(mean, std, dtype):
    with pytest.raises(ValueError, match="must"):
        Normalize(mean, std).apply({}, jnp.zeros((1, 2, 2, 3), dtype))


def test_no_group_at_all_is_an_error():
    with pytest.raises(ValueError, match="groups must be at least 1"):
        GroupNorm(groups=0)
