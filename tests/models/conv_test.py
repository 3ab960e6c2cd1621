"""The primitive: gradients against finite differences, transformations, dtypes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.models import Conv, conv
from jaxmoe.models.conv_window import conv_native, make_window


def draw(shape: tuple[int, ...], seed: int, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def directional_errors(dtype) -> tuple[float, float]:
    """Relative errors of both gradients along themselves; the loss is smooth, not linear."""
    x, kernel = draw((2, 5, 6, 5, 9), 0, dtype), draw((3, 3, 3, 9, 4), 1, dtype) / 8

    def loss(x, kernel):
        return jnp.sum(jnp.square(conv(x, kernel, strides=(1, 2, 1))))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, kernel)
    evaluate = jax.jit(loss)
    errors = []
    for argument, gradient in enumerate(gradients):
        # Quadratic in either argument, so that a central difference is exact at any step: one of
        # the size of the argument leaves nothing but rounding.
        direction = gradient / jnp.sqrt(jnp.mean(jnp.square(gradient)))
        ends = []
        for sign in (1, -1):
            moved = [x, kernel]
            moved[argument] = moved[argument] + sign * direction
            ends.append(float(evaluate(*moved)))
        numeric = (ends[0] - ends[1]) / 2
        analytic = float(jnp.sum(gradient * direction))
        errors.append(abs(numeric - analytic) / abs(analytic))
    return errors[0], errors[1]


def test_gradients_match_finite_differences_in_float32():
    assert max(directional_errors(jnp.float32)) <= 1e-4


def test_gradients_match_finite_differences_in_float64():
    with jax.enable_x64(True):
        assert max(directional_errors(jnp.float64)) <= 1e-6


def test_bfloat16_accumulates_in_float32():
    x, kernel = draw((2, 6, 6, 6, 64), 0, jnp.bfloat16), draw((3, 3, 3, 64, 4), 1, jnp.bfloat16)
    convolve = jax.jit(conv)
    y = convolve(x, kernel)
    exact = convolve(x.astype(jnp.float32), kernel.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))
    gradients = jax.jit(jax.grad(lambda *a: jnp.sum(conv(*a).astype(jnp.float32)), argnums=(0, 1)))(
        x, kernel
    )
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.bfloat16]


def test_an_output_of_a_batch_is_that_of_its_clip():
    x, kernel = draw((3, 5, 6, 6, 9), 0), draw((3, 3, 3, 9, 4), 1)
    convolve = jax.jit(conv)
    one_by_one = jnp.concatenate([convolve(x[i : i + 1], kernel) for i in range(3)])
    np.testing.assert_allclose(convolve(x, kernel), one_by_one, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("batched", ["x", "kernel", "both"])
def test_vmap_and_its_gradient(batched):
    x, kernel = draw((3, 2, 4, 5, 5, 9), 0), draw((3, 3, 3, 3, 9, 4), 1)
    axes = (None if batched == "kernel" else 0, None if batched == "x" else 0)
    operands = tuple(a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True))

    def gradients(x, kernel):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(conv(*a))), argnums=(0, 1))(x, kernel)

    mapped = jax.jit(jax.vmap(gradients, axes))(*operands)
    one = jax.jit(gradients)
    for i in range(3):
        alone = one(*(a[i] if axis == 0 else a for a, axis in zip(operands, axes, strict=True)))
        for ours, theirs in zip(mapped, alone, strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-4, atol=1e-4)


def test_remat_and_second_order():
    x, kernel = draw((1, 4, 4, 4, 3), 0), draw((3, 3, 3, 3, 2), 1)
    window = make_window(x, kernel, 1, "SAME", 1)

    def penalty(convolve):
        def inner(x, kernel):
            return jnp.sum(jnp.tanh(convolve(x, kernel)))

        def outer(kernel):
            return jnp.sum(jnp.square(jax.grad(jax.checkpoint(inner))(x, kernel)))

        return jax.jit(jax.grad(outer))(kernel)

    ours, theirs = penalty(conv), penalty(lambda x, k: conv_native(x, k, window))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_gpu_and_tpu_keep_the_native_operation():
    x, kernel = draw((2, 5, 6, 6, 9), 0), draw((3, 3, 3, 9, 4), 1)
    gradient = jax.jit(jax.grad(lambda *a: jnp.sum(conv(*a)), argnums=(0, 1)))
    for platform in ("cuda", "tpu"):
        text = gradient.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        # Both gradients, each one 3D convolution; nothing of time unrolled.
        assert text.count("stablehlo.convolution") == 2
        assert "dot_general" not in text


def test_patches_side_by_side_are_matmuls():
    """On CPU a convolution of 16 x 16 patches has gradients of 40x its own cost."""
    x, kernel = draw((2, 7, 9, 3), 0), draw((3, 4, 3, 5), 1)

    def loss(x, kernel):
        return jnp.sum(jnp.sin(conv(x, kernel, strides=(3, 4), padding="VALID")))

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, kernel).compile().as_text()
    assert "convolution(" not in text


def test_module_counts_and_bias():
    module = Conv(4, (3, 3), strides=2, use_bias=True)
    x = draw((2, 7, 7, 3), 0)
    params = module.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params)["params"] == {"kernel": (3, 3, 3, 4), "bias": (4,)}
    params["params"]["bias"] = jnp.full(4, 2.0)
    expected = conv(x, params["params"]["kernel"], strides=2) + 2.0
    np.testing.assert_allclose(module.apply(params, x), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "kernel", "options", "message"),
    [
        ((2, 3), (3, 3), {}, "spatial axes"),
        ((2, 5, 5, 3), (3, 3, 4, 8), {}, "kernel must be"),
        ((2, 5, 5, 3), (3, 3, 3, 8), {"strides": 0}, "strides must be"),
        ((2, 5, 5, 3), (3, 3, 3, 8), {"dilation": (1, 1, 1)}, "dilation must be"),
        ((2, 5, 5, 3), (3, 3, 3, 8), {"padding": "same"}, "padding must be"),
        ((2, 5, 5, 3), (3, 3, 3, 8), {"padding": ((1, -1), (0, 0))}, "padding must be"),
        ((2, 2, 2, 3), (3, 3, 3, 8), {"padding": "VALID"}, "fewer than the 3"),
    ],
)
def test_errors_are_one_line(x, kernel, options, message):
    with pytest.raises(ValueError, match=message) as error:
        conv(jnp.zeros(x), jnp.zeros(kernel), **options)
    assert "\n" not in str(error.value)


def test_mixed_dtypes_are_an_error():
    with pytest.raises(ValueError, match="dtype of x"):
        conv(jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 3, 2), jnp.bfloat16))
