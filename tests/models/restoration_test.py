"""The restoration block: two branches at other resolutions, half of each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.models import GroupNorm, ResNet, SlowFast
from jaxmoe.models.restoration import RestorationBlock
from tests.night import at_night

BLOCK = RestorationBlock(functools.partial(GroupNorm, dtype=jnp.float32))


def relu_convolution(params, name, x):
    """A convolution of width 3, a norm of one group, and ReLU; written anew, of images."""
    kernel = params[f"{name}_conv"]["kernel"]
    numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ("NHWC", "HWIO", "NHWC"))
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    mean = y.mean((1, 2, 3), keepdims=True)
    return jax.nn.relu((y - mean) / jnp.sqrt(y.var((1, 2, 3), keepdims=True) + 1e-5))


def halved(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def resized(x, height, width):
    return jax.image.resize(x, (*x.shape[:1], height, width, x.shape[3]), "linear", antialias=False)


@pytest.mark.parametrize("sizes", [at_night((6, 4)), (5, 7)])
def test_it_is_half_of_a_finer_and_half_of_a_coarser_branch(sizes):
    x = jnp.asarray(np.random.default_rng(0).random((2, *sizes, 4)), jnp.float32)
    params = jax.jit(BLOCK.init)(jax.random.key(0), x)["params"]
    over = resized(relu_convolution(params, "over1", x), 2 * sizes[0], 2 * sizes[1])
    over = halved(relu_convolution(params, "over2", over))
    under = relu_convolution(params, "under2", halved(relu_convolution(params, "under1", x)))
    expected = (over + resized(under, *sizes)) / 2
    np.testing.assert_allclose(
        jax.jit(BLOCK.apply)({"params": params}, x), expected, rtol=1e-4, atol=1e-5
    )


def test_time_stays_as_it_is():
    x = jnp.ones((1, 3, 4, 4, 2))
    params = jax.jit(BLOCK.init)(jax.random.key(0), x)
    assert jax.jit(BLOCK.apply)(params, x).shape == x.shape
    assert params["params"]["over1_conv"]["kernel"].shape == (3, 3, 3, 2, 2)


def test_features_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="restoration needs 2 × 2 features"):
        BLOCK.init(jax.random.key(0), jnp.ones((1, 4, 1, 2)))


NETWORKS = {
    "resnet": (ResNet, {}, {"restoration": 4}),
    "slowfast": (
        SlowFast,
        # Bottlenecks, so that widths behind the first stage are others than in front of it.
        {"depth": 50, "frame_ratio": 2, "channel_ratio": 2},
        {"slow_restoration": 16, "fast_restoration": 8},
    ),
}


@pytest.mark.parametrize(("kind", "fields", "blocks"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_has_it_behind_its_first_stage(kind, fields, blocks, variables_of):
    x = jnp.asarray(np.random.default_rng(0).random((2, 2, 4, 4, 3)), jnp.float32)
    make = functools.partial(kind, 3, width=4, stem="small", **fields)
    plain, restored = (
        jax.eval_shape(make(stage_sizes=(1, 1), restoration=on).init, jax.random.key(0), x)
        for on in (False, True)
    )
    assert set(restored["params"]) - set(plain["params"]) == set(blocks)
    for name, width in blocks.items():
        assert restored["params"][name]["under2_conv"]["kernel"].shape == (3, 3, 3, width, width)


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "fields", "blocks"), NETWORKS.values(), ids=NETWORKS)
def test_all_features_go_through_it(kind, fields, blocks, variables_of):
    x = jnp.asarray(np.random.default_rng(0).random((2, 2, 4, 4, 3)), jnp.float32)
    make = functools.partial(kind, 3, width=4, stem="small", **fields)
    model = make(stage_sizes=(1,), restoration=True)
    params = variables_of(model, x)["params"]
    params |= jax.tree.map(jnp.zeros_like, {name: params[name] for name in blocks})
    logits = jax.jit(model.apply)({"params": params}, x)
    np.testing.assert_array_equal(logits[0], logits[1])  # no feature is left to tell clips apart
