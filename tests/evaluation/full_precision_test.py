"""Certificates multiply at the highest precision wherever they run, and refuse half precision."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.evaluation.certify.certification import certifiable, certifiable_expert
from jaxmoe.evaluation.certify.lipschitz_bounds import affine_differences, logit_difference_bounds
from jaxmoe.evaluation.diagnostics.full_precision import at_full_precision
from jaxmoe.mixture import dual_mixture, from_modules, with_dual_weight
from jaxmoe.models import LinearRouter, ResNet

SHAPE, EXPERTS, CLASSES = (4, 4, 3), 2, 3
X = jnp.zeros((2, *SHAPE))
EXPERT = ResNet(CLASSES, width=4, stage_sizes=(1,))
BOUNDS = np.ones((EXPERTS, EXPERTS)), np.ones((EXPERTS, CLASSES, CLASSES))


def mixture_of(top_k=1, expert=EXPERT):
    return from_modules(LinearRouter(EXPERTS), expert, num_experts=EXPERTS, top_k=top_k)


PARAMS = jax.eval_shape(mixture_of().init, jax.random.key(0), X)


def products(function, *args) -> list[str]:
    """Every matmul and convolution of the program that a TPU would be given."""
    text = jax.jit(function).trace(*args).lower(lowering_platforms=("tpu",)).as_text()
    return re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)


@pytest.mark.parametrize("kind", ["top-1", "dense", "dual", "expert"])
def test_every_product_of_a_certificate_is_at_the_highest_precision(kind):
    single, params = mixture_of(), PARAMS
    match kind:
        case "top-1":
            subject = certifiable(single, *BOUNDS)
        case "dense":
            subject = certifiable(mixture_of(EXPERTS), *BOUNDS)
        case "dual":
            subject = certifiable(dual_mixture(single, single, 0.8), *BOUNDS, single)
            params = with_dual_weight({**PARAMS, "standard": PARAMS}, 0.8)
        case "expert":
            subject = certifiable_expert(single, 0, BOUNDS[1][0])
    found = products(subject.certify, params, X)
    assert any("convolution" in line for line in found)
    assert any("dot_general" in line for line in found)
    for line in found:
        assert line.count("HIGHEST") == 2, line
    # Without it a TPU would round: the test can fail.
    assert not any("HIGHEST" in line for line in products(single.apply, PARAMS, X))


def test_constants_of_affine_modules_are_at_the_highest_precision(monkeypatch):
    asked = []
    apply = lambda x: x.reshape(1, -1) @ jnp.eye(48)[:, :3]  # noqa: E731

    def noted(x):
        asked.append(jax.config.jax_default_matmul_precision)
        return apply(x)

    np.testing.assert_allclose(affine_differences(noted, SHAPE, "l2")[0, 1], np.sqrt(2), rtol=1e-6)
    assert set(asked) == {"highest"}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_refused(dtype):
    name = jnp.dtype(dtype).name
    computing = ResNet(CLASSES, width=4, stage_sizes=(1,), dtype=dtype)
    subject = certifiable(mixture_of(expert=computing), *BOUNDS)
    with pytest.raises(ValueError, match=f"certificate: {name} rounds outputs, which no constant"):
        jax.eval_shape(subject.certify, PARAMS, X)
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), PARAMS)
    with pytest.raises(ValueError, match=f"certificate: {name} rounds"):
        jax.eval_shape(certifiable(mixture_of(), *BOUNDS).certify, half, X)
    own = jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:], np.float32), PARAMS["experts"])
    with pytest.raises(ValueError, match=f"dtype: {name} rounds"):
        logit_difference_bounds(computing, own, SHAPE, "l2")
    with pytest.raises(ValueError, match=f"params: {name} rounds"):
        logit_difference_bounds(EXPERT, jax.tree.map(lambda p: p.astype(dtype), own), SHAPE, "l2")


def test_what_rounds_inside_a_loop_is_found():
    def looped(body):
        return lambda x: jax.lax.fori_loop(0, 2, lambda _, x: body(x), x)

    x = jnp.full((2, 2), 1 / 3)
    good = at_full_precision(looped(lambda x: x @ x))
    np.testing.assert_allclose(good(x), [[8 / 81] * 2] * 2, rtol=1e-5)
    for body, said in (
        (lambda x: x.astype(jnp.bfloat16).astype(x.dtype), "bfloat16 rounds"),
        (lambda x: jnp.dot(x, x, precision="default"), "multiplies with precision"),
        (lambda x: jnp.dot(x, x, precision="BF16_BF16_F32"), "multiplies with precision"),
        (lambda x: jax.lax.reduce_precision(x, 8, 7), "reduce_precision"),
    ):
        with pytest.raises(ValueError, match=said):
            at_full_precision(looped(body))(x)


def test_nothing_else_changes():
    """A tree of results, of a function that is not differentiable by itself."""
    function = at_full_precision(lambda params, x: {"sum": params["a"] + x, "x": (x, 2)})
    found = function({"a": jnp.float32(1)}, jnp.float32(2))
    assert found == {"sum": 3, "x": (2, 2)}
