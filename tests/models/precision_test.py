"""What a function rounds to, found without running it, and products that no platform rounds."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxmoe.models import Conv, ResNet
from jaxmoe.models.precision import unit_roundoff, with_exact_products

X = jnp.ones((2, 4))
EYE = jnp.eye(4)


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


CASES = {
    "float32": (lambda x: x @ EYE, 2**-24),
    "bfloat16 inside": (lambda x: rounded(x) @ EYE, 2**-8),
    "float16 inside": (lambda x: x.astype(jnp.float16).astype(jnp.float32), 2**-11),
    "in a loop": (lambda x: lax.fori_loop(0, 3, lambda _, x: rounded(x), x), 2**-8),
    "in a branch": (lambda x: lax.cond(x[0, 0] > 0, rounded, jnp.sin, x), 2**-8),
    "in a function": (lambda x: jax.jit(jax.checkpoint(rounded))(x), 2**-8),
    "to few bits": (lambda x: lax.reduce_precision(x, 8, 4), 2**-5),
    "integers alone": (lambda x: jnp.argmax(x, axis=-1).astype(jnp.int32), 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_the_coarsest_floats_inside(case):
    function, want = CASES[case]
    assert unit_roundoff(function, X) == want


@pytest.mark.parametrize(("dtype", "want"), [(jnp.float32, 2**-24), (jnp.bfloat16, 2**-8)])
def test_logits_in_float32_do_not_hide_what_a_network_computes_in(dtype, want):
    model = ResNet(3, width=4, stage_sizes=(1,), dtype=dtype)
    x = jnp.ones((1, 4, 4, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    assert jax.eval_shape(model.apply, params, x).dtype == jnp.float32
    assert unit_roundoff(model.apply, params, x) == want


@pytest.mark.parametrize(("platform", "want"), [("tpu", 2**-8), ("gpu", 2**-11)])
def test_float32_products_of_an_accelerator_are_coarser_unless_it_is_asked(
    monkeypatch, platform, want
):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)

    def product(x):
        return x @ EYE

    assert unit_roundoff(product, X) == want
    assert unit_roundoff(with_exact_products(product), X) == 2**-24
    with jax.default_matmul_precision("bfloat16"):  # a user's choice stays
        assert unit_roundoff(with_exact_products(product), X) == want


def products(function, *args) -> list[str]:
    """Every matmul and convolution of the program that a TPU would be given."""
    text = jax.jit(function).trace(*args).lower(lowering_platforms=("tpu",)).as_text()
    return re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)


def test_the_gradients_of_a_convolution_have_its_precision():
    layer = Conv(4, (3, 3))
    x = jnp.ones((2, 5, 5, 3))
    params = jax.eval_shape(layer.init, jax.random.key(0), x)

    def gradients(apply):
        return jax.grad(lambda params, x: jnp.sum(jnp.square(apply(params, x))), argnums=(0, 1))

    exact = products(gradients(with_exact_products(layer.apply)), params, x)
    assert len(exact) == 3
    assert all(line.count("HIGHEST") == 2 for line in exact)
    assert not any("HIGHEST" in line for line in products(gradients(layer.apply), params, x))


def test_precision_changes_nothing_on_a_cpu():
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 4)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)
    product = lambda x: x @ weights  # noqa: E731
    np.testing.assert_array_equal(jax.jit(with_exact_products(product))(x), jax.jit(product)(x))
