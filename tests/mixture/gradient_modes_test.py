"""What attacks see of the mixture's value and gradient in each mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.mixture import apply_soft, from_functions, with_gradient

RNG = np.random.default_rng(0)
PARAMS = jax.tree.map(
    lambda leaf: jnp.asarray(leaf, jnp.float32),
    {"router": RNG.normal(size=(5, 3)), "experts": RNG.normal(size=(3, 5, 4))},
)
X = jnp.asarray(RNG.uniform(size=(6, 5)), jnp.float32)
COTANGENT = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)


def mixture(combine="softmax", top_k=1):
    return from_functions(
        lambda params, x: x @ params,
        lambda params, x: jnp.tanh(x @ params),
        num_experts=3,
        top_k=top_k,
        combine=combine,
    )


def soft(params, x):
    weights = jax.nn.softmax(x @ params["router"])
    return sum(
        weights[:, i, None] * jnp.tanh(x @ params["experts"][i]) for i in range(weights.shape[1])
    )


def gradient(apply, cotangent):
    """Of `sum(cotangent · logits)` in params and x."""
    return jax.jit(lambda: jax.vjp(apply, PARAMS, X)[1](cotangent))()


def assert_close(got, want):
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_hard_is_the_mixture_itself():
    moe = mixture()
    apply = with_gradient(moe, "hard")
    np.testing.assert_array_equal(apply(PARAMS, X), moe.apply(PARAMS, X))


def test_soft_weights_all_experts():
    apply = with_gradient(mixture(), "soft")
    np.testing.assert_allclose(apply(PARAMS, X), soft(PARAMS, X), rtol=1e-5, atol=1e-6)
    assert_close(gradient(apply, COTANGENT), gradient(soft, COTANGENT))


def test_straight_through_has_the_hard_value_and_the_soft_gradient():
    moe = mixture("none")
    apply = jax.jit(with_gradient(moe, "straight_through"))
    hard = jax.jit(moe.apply)(PARAMS, X)
    np.testing.assert_array_equal(apply(PARAMS, X), hard)
    ours = gradient(apply, COTANGENT)
    assert_close(ours, gradient(soft, COTANGENT))
    # Where the hard router's gradient is dead, this one lives.
    assert not gradient(moe.apply, COTANGENT)[0]["router"].any()
    assert ours[0]["router"].any()


def test_all_experts_with_softmax_weights_are_the_soft_mixture():
    moe = mixture(top_k=3)
    np.testing.assert_allclose(
        moe.apply(PARAMS, X), apply_soft(moe, PARAMS, X), rtol=1e-5, atol=1e-6
    )


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"attack.gradient: 'sof' is not one of hard, soft"):
        with_gradient(mixture(), "sof")
