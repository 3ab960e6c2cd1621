"""The dual model against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.mixture import apply_dense, apply_soft, dual_mixture, robust_part, with_dual_weight
from tests.training.conftest import SHAPE, tiny_mixture

X = jnp.asarray(np.random.default_rng(0).random((5, *SHAPE)), jnp.float32)


@pytest.fixture(scope="module")
def standard():
    return tiny_mixture(top_k=2)


@pytest.fixture(scope="module")
def robust():
    return tiny_mixture()


@pytest.fixture(scope="module")
def dual(standard, robust):
    return dual_mixture(standard, robust, 0.75)


@pytest.fixture(scope="module")
def params(dual):
    return dual.init(jax.random.key(0), X)


def test_it_is_a_weighted_sum_of_two_mixtures(dual, standard, robust, params):
    f_s, f_r = standard.apply(params["standard"], X), robust.apply(params, X)
    np.testing.assert_allclose(dual.apply(params, X), 0.25 * f_s + 0.75 * f_r, rtol=1e-5)
    np.testing.assert_allclose(apply_dense(dual, params, X), dual.apply(params, X), rtol=1e-5)
    soft = 0.25 * f_s + 0.75 * apply_soft(robust, params, X)
    np.testing.assert_allclose(apply_soft(dual, params, X), soft, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(robust_part(dual).apply(params, X), f_r)
    assert not np.allclose(f_s, f_r)


def test_a_curve_over_alpha_is_one_vmap(dual, params):
    alphas = jnp.linspace(0.5, 1.0, 6)
    curve = jax.vmap(lambda alpha: dual.apply(with_dual_weight(params, alpha), X))(alphas)
    for alpha, logits in zip(alphas, curve, strict=True):
        alone = dual.apply(with_dual_weight(params, float(alpha)), X)
        np.testing.assert_allclose(logits, alone, rtol=1e-5, atol=1e-6)


def test_its_ends_are_the_two_mixtures(dual, standard, robust, params):
    np.testing.assert_array_equal(
        dual.apply(with_dual_weight(params, 1), X), robust.apply(params, X)
    )
    np.testing.assert_array_equal(
        dual.apply(with_dual_weight(params, 0), X), standard.apply(params["standard"], X)
    )


def test_alpha_is_a_share(standard, robust):
    with pytest.raises(ValueError, match=r"mixture\.dual_weight: 1\.5 is not accepted"):
        dual_mixture(standard, robust, 1.5)
