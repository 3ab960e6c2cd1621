"""Routers: shapes, per-clip behaviour, cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.models import ConvRouter, LinearRouter, PooledRouter, ResNet, average_pool_to

ROUTERS = {
    "conv": ConvRouter(4, width=8),
    "linear": LinearRouter(4),
    "pooled": PooledRouter(4),
    "pooled_hidden": PooledRouter(4, grid=(1, 2, 2), hidden=5),
}


def pixels(shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)


@pytest.mark.parametrize("shape", [(3, 4, 9, 10, 3), (3, 16, 15, 1)])
@pytest.mark.parametrize("name", ROUTERS)
def test_logits_of_clips_and_images_depend_on_no_neighbour(name, shape, variables_of):
    router, x = ROUTERS[name], pixels(shape)
    params = variables_of(router, x)
    apply = jax.jit(router.apply)
    logits = apply(params, x)
    assert logits.shape == (3, 4)
    assert logits.dtype == jnp.float32
    assert not logits.aval.weak_type
    np.testing.assert_allclose(
        logits[1:2], apply(params, jnp.broadcast_to(x[1:2], x.shape))[:1], rtol=1e-4, atol=1e-5
    )


def test_linear_router_is_affine_in_pixels(variables_of):
    x = pixels((2, 3, 4, 4, 3))
    router = LinearRouter(5)
    params = variables_of(router, x)
    middle = router.apply(params, (x[:1] + x[1:]) / 2)
    np.testing.assert_allclose(
        middle, jnp.mean(router.apply(params, x), 0, keepdims=True), rtol=1e-5, atol=1e-6
    )


def test_pooled_router_reads_the_grid_only(variables_of):
    x = pixels((1, 4, 8, 8, 3))
    router = PooledRouter(3, grid=(1, 2, 2))
    params = variables_of(router, x)
    flat = jnp.broadcast_to(
        average_pool_to(x, (1, 2, 2))[:, :, :, None, :, None], (1, 1, 2, 4, 2, 4, 3)
    )
    flat = jnp.broadcast_to(flat.reshape(1, 1, 8, 8, 3), x.shape)
    np.testing.assert_allclose(
        router.apply(params, x), router.apply(params, flat), rtol=1e-4, atol=1e-5
    )


def test_convolutional_router_costs_a_few_percent_of_an_expert():
    x = jax.ShapeDtypeStruct((2, 8, 64, 64, 3), jnp.float32)

    def flops(model):
        params = jax.eval_shape(model.init, jax.random.key(0), x)
        lowered = jax.jit(model.apply).lower(params, x)
        return lowered.cost_analysis()["flops"]

    expert = ResNet(6, depth=10, width=32, stem="small")
    assert flops(ConvRouter(4)) < 0.05 * flops(expert)


@pytest.mark.parametrize(
    ("router", "fields", "message"),
    [
        (ConvRouter, {"num_experts": 0}, "num_experts must be at least 1"),
        (ConvRouter, {"num_experts": 2, "width": 0}, "width must be at least 1"),
        (LinearRouter, {"num_experts": -1}, "num_experts must be at least 1"),
        (PooledRouter, {"num_experts": 2, "hidden": -1}, "hidden must be >= 0"),
        (PooledRouter, {"num_experts": 2, "grid": (0, 1, 1)}, "grid >= 1"),
    ],
)
def test_impossible_fields_are_one_line(router, fields, message):
    with pytest.raises(ValueError, match=message):
        router(**fields)


def test_the_conv_router_tells_clips_apart_down_to_one_feature(variables_of):
    """Normalising each channel on its own would leave the mean nothing to tell."""
    x = jax.random.uniform(jax.random.key(0), (4, 4, 16, 16, 3))
    router = ConvRouter(num_experts=4, width=8)
    variables = variables_of(router, x)
    logits = router.apply(variables, x)
    assert float(jnp.min(jnp.std(logits, axis=0))) > 1e-3
