"""Every lowering of `conv` against the native operation, forward and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.models.conv_kernel_gradient import taps_kernel_gradient
from jaxmoe.models.conv_taps import conv_taps, taps_input_gradient
from jaxmoe.models.conv_window import conv_native, make_window

ONES = ((1, 1),) * 3

# (spatial sizes, channels, kernel, strides, padding, dilation)
USED = {
    "block": ((5, 7, 6), 9, (3, 3, 3), 1, ONES, 1),
    "block_of_one_frame": ((1, 4, 4), 9, (3, 3, 3), 1, ONES, 1),
    "block_of_two_frames": ((2, 4, 4), 9, (3, 3, 3), 1, ONES, 1),
    "block_of_even_frames": ((8, 5, 5), 10, (3, 3, 3), 1, ONES, 1),
    "strided_block": ((6, 8, 7), 9, (3, 3, 3), 2, ONES, 1),
    "strided_block_of_one_frame": ((1, 2, 2), 9, (3, 3, 3), 2, ONES, 1),
    "many_channels": ((3, 4, 4), 64, (3, 3, 3), 1, ONES, 1),
    "strided_many_channels": ((3, 4, 4), 64, (3, 3, 3), 2, ONES, 1),
    "shortcut": ((5, 8, 7), 9, (1, 1, 1), 2, "VALID", 1),
    "pointwise": ((3, 4, 4), 9, (1, 1, 1), 1, "SAME", 1),
    "pointwise_padded": ((3, 4, 4), 9, (1, 1, 1), (1, 2, 2), ((1, 0), (2, 1), (0, 1)), 1),
    "stem_of_paper": ((5, 14, 13), 3, (7, 7, 7), (1, 2, 2), ((3, 3),) * 3, 1),
    "small_stem": ((4, 9, 8), 3, (3, 3, 3), (1, 2, 2), ONES, 1),
    "router": ((7, 9, 9), 3, (3, 5, 5), (2, 4, 4), "SAME", 1),
    "temporal": ((6, 4, 4), 9, (3, 1, 1), 1, "SAME", 1),
    "spatial": ((3, 6, 6), 9, (1, 3, 3), (1, 2, 2), "SAME", 1),
    "dilated_in_time": ((7, 5, 5), 9, (3, 3, 3), 1, "SAME", (2, 1, 1)),
    "valid": ((6, 5, 7), 9, (3, 3, 3), 1, "VALID", 1),
    "tubelets": ((4, 8, 6), 3, (2, 4, 3), (2, 4, 3), "VALID", 1),
    "patches_that_leave_a_rest": ((9, 11), 9, (4, 3), (4, 3), "VALID", 1),
    "frames_in_pairs": ((5, 3, 4), 9, (2, 1, 1), (2, 1, 1), "VALID", 1),
    "patches_at_a_border": ((7, 7), 9, (3, 3), 3, ((1, 1), (1, 1)), 1),
    "image": ((9, 10), 9, (3, 3), 2, "SAME", 1),
    "image_dilated": ((9, 10), 3, (3, 2), 1, ((0, 2), (3, 0)), (2, 3)),
    "series": ((12,), 9, (4,), 3, "SAME", 1),
}


def draw(shape: tuple[int, ...], seed: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def compare(sizes, channels, kernel, strides, padding, dilation, batch=2, features=4):
    x = draw((batch, *sizes, channels), 0)
    kernel = draw((*kernel, channels, features), 1)
    window = make_window(x, kernel, strides, padding, dilation)

    @jax.jit
    def native(x, kernel):
        y, pullback = jax.vjp(lambda x, kernel: conv_native(x, kernel, window), x, kernel)
        return y, *pullback(jnp.cos(y))

    @jax.jit
    def taps(x, kernel):
        y = conv_taps(x, kernel, window)
        operands = x, kernel, jnp.cos(conv_native(x, kernel, window)), window
        return y, taps_input_gradient(*operands), taps_kernel_gradient(*operands)

    names = ("output", "input gradient", "kernel gradient")
    for name, ours, theirs in zip(names, taps(x, kernel), native(x, kernel), strict=True):
        assert ours.shape == theirs.shape, name
        assert ours.dtype == theirs.dtype, name
        scale = float(jnp.max(jnp.abs(theirs))) if theirs.size else 0.0
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-6 * scale, err_msg=name)


@pytest.mark.parametrize("case", USED)
def test_lowerings_agree_for_every_window_used(case):
    compare(*USED[case])


@pytest.mark.parametrize("strides", [1, 2])
def test_lowerings_agree_for_many_features(strides):
    compare((3, 4, 4), 9, (3, 3, 3), strides, ONES, 1, features=64)


@st.composite
def geometries(draw_):
    rank = draw_(st.integers(1, 3))

    def per_axis(low, high):
        return draw_(st.tuples(*[st.integers(low, high)] * rank))

    sizes, kernel = per_axis(1, 7), per_axis(1, 4)
    strides, dilation = per_axis(1, 3), per_axis(1, 2)
    padding = []
    for n, k, d in zip(sizes, kernel, dilation, strict=True):
        low, high = draw_(st.integers(0, 4)), draw_(st.integers(0, 4))
        padding.append((low, max(high, (k - 1) * d + 1 - n - low)))
    channels = draw_(st.sampled_from([1, 3, 9]))
    return sizes, channels, kernel, strides, tuple(padding), dilation


@pytest.mark.nightly
@settings(max_examples=20, deadline=None, derandomize=True)
@given(geometries())
def test_lowerings_agree_for_any_window(geometry):
    compare(*geometry)
