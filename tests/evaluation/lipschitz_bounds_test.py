"""Bounds of modules: exact where they can be, and never below a quotient that is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.evaluation.certify.lipschitz_bounds import (
    conv_bound,
    dense_bound,
    group_norm_bound,
    logit_difference_bounds,
)
from jaxmoe.models import (
    ConvRouter,
    GroupNorm,
    LinearRouter,
    PooledRouter,
    ResNet,
    VisionTransformer,
    conv,
)
from tests.night import at_night

NORMS = ("linf", "l2")


def length(x, norm) -> float:
    x = np.asarray(x, np.float64).ravel()
    return float(np.max(np.abs(x)) if norm == "linf" else np.linalg.norm(x))


def steepest_quotient(function, shape, norm, points=4, seed=0) -> float:
    """The largest induced norm of the Jacobian at some points: a lower bound of any constant."""
    jacobian = jax.jit(jax.jacrev(lambda x: function(x[None]).reshape(-1)))
    largest = 0.0
    for point in range(points):
        x = np.random.default_rng([seed, point]).random(shape, np.float32)
        matrix = np.asarray(jacobian(jnp.asarray(x)), np.float64).reshape(-1, x.size)
        rows = np.sum(np.abs(matrix), axis=1)
        largest = max(largest, rows.max() if norm == "linf" else np.linalg.norm(matrix, 2))
    return float(largest)


def random_params(module, shape, seed=0):
    params = module.init(jax.random.key(seed), jnp.zeros((1, *shape)))
    leaves, structure = jax.tree.flatten(params)
    draw = np.random.default_rng(seed)
    noise = [leaf + 0.3 * jnp.asarray(draw.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, noise)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (LinearRouter(3, std=(0.2, 0.5, 0.4)), (4, 5, 3)),
        (PooledRouter(3, grid=(2, 2, 3)), (4, 6, 5, 3)),
    ],
)
def test_affine_routers_have_exact_constants(module, shape, norm):
    params = random_params(module, shape)
    found = logit_difference_bounds(module, params, shape, norm)
    assert found.shape == (3, 3)
    for a in range(3):
        for b in range(3):

            def difference(x, a=a, b=b):
                logits = module.apply(params, x)
                return logits[:, a] - logits[:, b]

            steepest = steepest_dual(difference, shape, norm)
            np.testing.assert_allclose(found[a, b], steepest, rtol=1e-4, atol=1e-6)


def steepest_dual(function, shape, norm) -> float:
    """How fast a number can change: the dual norm of its gradient."""
    x = jnp.asarray(np.random.default_rng(3).random(shape, np.float32))
    gradient = np.asarray(jax.grad(lambda x: function(x[None])[0])(x), np.float64).ravel()
    return float(np.sum(np.abs(gradient)) if norm == "linf" else np.linalg.norm(gradient))


BOUNDED = (
    (PooledRouter(3, grid=(2, 3, 4), hidden=5), (5, 5, 3)),
    (ResNet(3, width=4, stage_sizes=(1, 1), stem="small"), (8, 8, 3)),
    (ConvRouter(3, width=4), (8, 9, 3)),
    (ResNet(3, width=4, stage_sizes=(1, 1), stem="large", norm="frozen_batch"), (2, 8, 8, 3)),
)


@pytest.mark.parametrize(
    ("module", "shape", "norm"),
    [
        (*BOUNDED[0], "linf"),
        (*BOUNDED[1], "l2"),
        at_night(*BOUNDED[0], "l2"),
        at_night(*BOUNDED[1], "linf"),
        *(at_night(*case, norm) for case in BOUNDED[2:] for norm in NORMS),
    ],
)
def test_a_bound_is_above_every_slope_that_is_found(module, shape, norm):
    x = jnp.asarray(np.random.default_rng(3).random((1, *shape)), jnp.float32)

    @jax.jit
    def slope(params):
        def difference(x):
            logits = module.apply(params, x)[0]
            return logits[0] - logits[1]

        return jax.grad(difference)(x)

    for seed in range(3):
        params = random_params(module, shape, seed)
        found = logit_difference_bounds(module, params, shape, norm)
        steepest = length(slope(params), "l2") if norm == "l2" else np.sum(np.abs(slope(params)))
        assert 0 < steepest <= found[0, 1]
        assert found[0, 0] == 0
        np.testing.assert_array_equal(found, found.T)


def head_differences(params, norm):
    rows = np.asarray(params["params"]["head"]["kernel"], np.float64).T
    difference = rows[:, None] - rows[None]
    return np.linalg.norm(difference, 1 if norm == "linf" else 2, axis=-1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("normalization", ["frozen_batch", "group"])
@pytest.mark.parametrize("stem", ["small", "large"])
def test_a_resnets_bound_is_the_product_of_its_layers(stem, normalization, norm):
    module = ResNet(
        3, width=4, stage_sizes=(1, 2), stem=stem, norm=normalization, std=(0.5, 0.2, 0.4)
    )
    params = random_params(module, (16, 16, 3))
    if normalization == "frozen_batch":
        statistics = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.1, params["batch_stats"])
        params = {**params, "batch_stats": statistics}
    weights = jax.tree.map(np.asarray, params["params"])

    def steepness(group, name, *path):
        scale, statistics = weights, params.get("batch_stats", {})
        for part in (*path, name):
            scale, statistics = scale[part], statistics.get(part, {})
        if normalization == "group":
            return group_norm_bound(scale, group, 1e-5, norm)
        return np.max(np.abs(scale["scale"]) / np.sqrt(statistics["var"] + 1e-5))

    # Resolutions behind the stem, the first and the second stage; groups have one channel of 4 or
    # 8, so that a group is one picture or two.
    sides = {"small": (8, 8, 4), "large": (8, 4, 2)}[stem]
    expected = 1 / 0.2 * conv_bound(weights["stem"]["kernel"], norm)
    expected *= steepness(group_of(4, sides[0]), "norm_stem")
    if stem == "large" and norm == "l2":
        expected *= 2  # the pool of 3 with stride 2 sees a pixel of two axes up to four times
    for name, channels, side in (
        ("stage1_block1", 4, sides[1]),
        ("stage2_block1", 8, sides[2]),
        ("stage2_block2", 8, sides[2]),
    ):
        block, group = weights[name], group_of(channels, side)
        branch = conv_bound(block["conv1"]["kernel"], norm) * steepness(group, "norm1", name)
        branch *= conv_bound(block["conv2"]["kernel"], norm) * steepness(group, "norm2", name)
        shortcut = 1.0
        if name == "stage2_block1":
            shortcut = conv_bound(block["proj"]["kernel"], norm)
            shortcut *= steepness(group, "norm_proj", name)
        expected *= shortcut + branch
    if norm == "l2":
        expected /= sides[2]  # a mean over its square of positions
    found = logit_difference_bounds(module, params, (16, 16, 3), norm)
    np.testing.assert_allclose(found, expected * head_differences(params, norm), rtol=1e-5)


def group_of(channels, side):
    return side * side * channels // GroupNorm().count_groups(channels)


@pytest.mark.parametrize("norm", NORMS)
def test_a_conv_routers_bound_is_the_product_of_its_layers(norm):
    module, shape = ConvRouter(3, width=4, std=(0.5, 0.2, 0.4)), (2, 32, 32, 3)
    params = random_params(module, shape)
    weights = jax.tree.map(np.asarray, params["params"])
    expected = 1 / 0.2
    # Time is halved, height and width shrink by 4 at first.
    for layer, positions in ((1, 1 * 8 * 8), (2, 1 * 4 * 4), (3, 1 * 2 * 2)):
        kernel, group = weights[f"conv{layer}"]["kernel"], weights[f"norm{layer}"]
        expected *= conv_bound(kernel, norm)
        expected *= group_norm_bound(group, positions * kernel.shape[-1], 1e-5, norm)
    if norm == "l2":
        expected /= 2  # a mean over four positions
    found = logit_difference_bounds(module, params, shape, norm)
    np.testing.assert_allclose(found, expected * head_differences(params, norm), rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("strides", [1, 2])
def test_layers_are_bounded(norm, strides):
    draw = np.random.default_rng(0)
    kernel = draw.normal(size=(3, 3, 2, 4)).astype(np.float32)
    steepest = steepest_quotient(
        lambda x: conv(x, jnp.asarray(kernel), strides=strides), (9, 9, 2), norm, points=1
    )
    bound = conv_bound(kernel, norm)
    assert steepest <= bound * (1 + 1e-6)
    # An inner pixel sees the whole window, so ℓ∞'s bound is met; ℓ2's is near.
    assert bound <= steepest * (1 + 1e-5 if norm == "linf" else 2.5 * strides)
    dense = draw.normal(size=(5, 7))
    matrix = dense.T
    exact = np.abs(matrix).sum(1).max() if norm == "linf" else np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(dense_bound(dense, norm), exact)


@pytest.mark.parametrize("norm", NORMS)
def test_a_group_norm_near_a_constant_input_is_as_steep_as_its_bound_says(norm):
    module = GroupNorm(groups=1)
    params = module.init(jax.random.key(0), jnp.zeros((1, 4, 8)))
    flat = lambda x: module.apply(params, 1e-6 * x)  # noqa: E731
    steepest = steepest_quotient(flat, (4, 8), norm, points=1) * 1e6
    bound = group_norm_bound({"scale": np.ones(8)}, 32, 1e-5, norm)
    assert steepest <= bound * (1 + 1e-4)
    assert bound <= steepest * (1.01 if norm == "l2" else 8)


def test_attention_has_no_bound():
    with pytest.raises(ValueError, match=r"VisionTransformer has no Lipschitz bound"):
        logit_difference_bounds(VisionTransformer(3), {}, (32, 32, 3), "l2")
