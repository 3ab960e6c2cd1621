"""Blocks that are computed anew in the backward pass: the same network, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import EXPERTS
from jaxmoe.mixture import dispatch
from jaxmoe.models import FRRN, DeepLabV3Plus, ResNet, SlowFast, VisionTransformer
from tests.night import at_night

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
EXPERT_COUNT, BATCH, SIZE = 3, 12, 16


def resnet(**fields) -> ResNet:
    small = {"width": 4, "stage_sizes": (2, 1), "stem": "small", "stem_strides": (1, 1, 1)}
    return ResNet(3, **{**small, **fields})


def transformer(**fields) -> VisionTransformer:
    return VisionTransformer(3, patch=4, width=8, depth=2, heads=2, **fields)


def deeplab(**fields) -> DeepLabV3Plus:
    sizes = {"stage_sizes": (1, 1), "features": 4, "low_level": 2, "rates": (1,)}
    return DeepLabV3Plus(3, width=4, **sizes, **fields)


def full_resolution(**fields) -> FRRN:
    return FRRN(3, width=2, residual_width=2, **fields)


def slow_and_fast(**fields) -> SlowFast:
    sizes = {"depth": 10, "width": 4, "stage_sizes": (1, 1), "channel_ratio": 2, "frame_ratio": 2}
    return SlowFast(3, stem="small", **sizes, **fields)


def pixels(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)


def total(model):
    return lambda params, x: jnp.sum(jnp.square(model.apply(params, x)))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        at_night(resnet, (2, 2, 8, 8, 3)),
        at_night(transformer, (2, 8, 8, 3)),
        at_night(deeplab, (2, 16, 16, 3)),
    ],
)
def test_values_and_gradients_are_those_of_the_same_network(build, shape, variables_of):
    plain, remat, x = build(), build(remat=True), pixels(*shape)
    params = variables_of(plain, x)
    shapes = [jax.eval_shape(m.init, jax.random.key(0), x) for m in (plain, remat)]
    assert shapes[0] == shapes[1]

    def found(model):
        run = jax.jit(jax.value_and_grad(total(model), argnums=(0, 1)), compiler_options=FAST)
        return run(params, x)

    want, got = (jax.tree.leaves(found(model)) for model in (plain, remat))
    # Some gradients are zero but for rounding, such as that of the bias of attention's keys.
    largest = max(float(jnp.abs(leaf).max()) for leaf in want[1:])
    for wanted, leaf in zip(want, got, strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-5 * largest)
    run = lambda model: jax.jit(model.apply, compiler_options=FAST)(params, x)  # noqa: E731
    np.testing.assert_array_equal(run(plain), run(remat))


@pytest.mark.parametrize(
    "build", [resnet, transformer, deeplab, *map(at_night, (slow_and_fast, full_resolution))]
)
def test_a_block_is_a_checkpoint_and_draws_the_same_params(build):
    shape = (1, 2, 16, 16, 3) if build in (resnet, slow_and_fast) else (1, 16, 16, 3)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    params = [jax.eval_shape(m.init, jax.random.key(0), x) for m in (build(), build(remat=True))]
    assert params[0] == params[1]
    shown = [str(jax.make_jaxpr(m.apply)(params[0], x)) for m in (build(), build(remat=True))]
    assert ["checkpoint" in text or "remat" in text for text in shown] == [False, True]


def test_a_network_is_drawn_alike():
    key, x = jax.random.key(0), pixels(1, 2, 8, 8, 3)
    draw = [jax.jit(m.init, compiler_options=FAST)(key, x) for m in (resnet(), resnet(remat=True))]
    jax.tree.map(np.testing.assert_array_equal, *draw)


@pytest.mark.parametrize("name", EXPERTS)
def test_a_configuration_passes_it_on(name):
    assert [EXPERTS.make(name, remat=remat).build(3).remat for remat in (False, True)] == [
        False,
        True,
    ]


def temporary_bytes(build, argument: int, **fields) -> int:
    """Memory of a gradient through the dispatch of images to experts."""
    model = build(**fields)
    x = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.float32)
    routing = jnp.arange(BATCH)[:, None] % EXPERT_COUNT
    one = jax.eval_shape(model.init, jax.random.key(0), x)
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((EXPERT_COUNT, *leaf.shape), leaf.dtype), one
    )

    def loss(params, x):
        return jnp.sum(jnp.square(dispatch(model.apply, params, x, routing, block_size=2)))

    gradient = jax.jit(jax.grad(loss, argnums=argument), compiler_options=FAST)
    return gradient.lower(params, x).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("build", [resnet, at_night(transformer)])
def test_dispatch_keeps_nothing_of_a_block_of_clips(build):
    # Eight blocks of two images: without it every convolution's and matmul's result is kept.
    plain, remat = (temporary_bytes(build, 1, remat=remat) for remat in (False, True))
    assert remat < 0.6 * plain


def test_params_and_losses_stay_float32_in_bfloat16(variables_of):
    model, x = resnet(dtype=jnp.bfloat16, remat=True), pixels(2, 8, 8, 3)
    params = variables_of(model, x)
    loss, gradients = jax.jit(jax.value_and_grad(total(model), argnums=(0, 1)))(params, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves((loss, gradients))} == {jnp.dtype("float32")}
    inner = str(jax.make_jaxpr(model.apply)(params, x))
    assert "bf16" in inner
