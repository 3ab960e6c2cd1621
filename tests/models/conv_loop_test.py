"""`conv` within loops on CPU: the same numbers, and no convolution that misses the fast routine."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxmoe.models import ResNet, conv
from tests.night import at_night

STEPS = 3


def draw(shape: tuple[int, ...], seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def two_layers(x, kernels):
    y = jax.nn.relu(conv(x, kernels[0], strides=(1, 2, 2)))
    return jnp.sum(jnp.tanh(conv(y, kernels[1], strides=1)))


KERNELS = (draw((3, 3, 3, 3, 10), 1) / 9, draw((3, 3, 3, 10, 6), 2) / 16)
# Frames of more than 8x8 positions in both layers: smaller ones are matmuls altogether.
X = draw((1, 5, 18, 20, 3), 0)


def test_gradients_inside_a_scan_equal_those_outside():
    gradients = jax.grad(two_layers, argnums=(0, 1))

    def step(carry, scale):
        return carry, gradients(carry * scale, KERNELS)

    scales = jnp.arange(1.0, STEPS + 1)
    _, inside = jax.jit(lambda x: lax.scan(step, x, scales))(X)
    outside = jax.jit(gradients)
    for i in range(STEPS):
        alone = outside(X * scales[i], KERNELS)
        for ours, theirs in zip(jax.tree.leaves(inside), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-4, atol=1e-5)


def test_gradient_through_a_switch_inside_a_scan():
    stacked = jnp.stack([KERNELS[0], 2 * KERNELS[0]])

    def loss(x, stacked):
        def step(total, index):
            branches = [
                lambda: jnp.sum(jnp.sin(conv(x, stacked[index]))),
                lambda: jnp.zeros(()),
            ]
            return total + lax.switch(index % 2, branches), None

        return lax.scan(step, jnp.zeros(()), jnp.array([0, 1, 0]))[0]

    ours = jax.jit(jax.grad(loss, argnums=(0, 1)))(X, stacked)
    theirs = jax.jit(
        jax.grad(lambda x, k: 2 * jnp.sum(jnp.sin(conv(x, k[0]))), argnums=(0, 1)),
    )(X, stacked)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def compiled_loop(loss, x, params, argnums) -> str:
    """The optimised program of a loop over gradients, each step reading the one before."""

    def step(carry, _):
        gradients = jax.grad(loss, argnums=argnums)(*carry)
        moved = list(carry)
        for i, gradient in zip(argnums, gradients, strict=True):
            moved[i] = jax.tree.map(lambda a, g: a + 0.1 * g, moved[i], gradient)
        return tuple(moved), None

    def run(x, params):
        return lax.scan(step, (x, params), length=STEPS)[0]

    return jax.jit(run).lower(x, params).compile().as_text()


def labels(program: str) -> set[str]:
    return set(re.findall(r"dim_labels=(\S+?)[,\s]", program))


@pytest.mark.parametrize("argnums", [(0,), (1,), (0, 1)])
def test_no_convolution_in_a_loop_misses_the_fast_routine(argnums):
    assert labels(compiled_loop(two_layers, X, KERNELS, argnums)) == {"b01f_01io->b01f"}


def test_the_check_finds_slow_convolutions():
    def native(x, kernel):
        return jnp.sum(
            jnp.sin(
                lax.conv_general_dilated(
                    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
            )
        )

    program = compiled_loop(native, X[0], KERNELS[0][0], (0, 1))
    assert labels(program) - {"b01f_01io->b01f"}


def test_an_attack_does_not_pay_for_the_kernels_gradient():
    # Matmuls here come from kernel gradients alone: no window is 1x1.
    assert " dot(" not in compiled_loop(two_layers, X, KERNELS, (0,))
    assert " dot(" in compiled_loop(two_layers, X, KERNELS, (0, 1))


@pytest.mark.parametrize("convolution", [at_night("full"), "factored", at_night("shift")])
def test_a_resnet_in_a_loop_has_fast_convolutions_only(convolution, variables_of):
    width = 8 if convolution == "shift" else 4
    model = ResNet(3, width=width, stage_sizes=(1, 1), stem="small", convolution=convolution)
    x = jnp.abs(X[:, :2])
    params = variables_of(model, x)

    def loss(x, params):
        return jnp.sum(jax.nn.log_softmax(model.apply(params, x))[:, 0])

    assert labels(compiled_loop(loss, x, params, (0, 1))) == {"b01f_01io->b01f"}
