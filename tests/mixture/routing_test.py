"""Combine weights and balance losses against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm

from jaxmoe.mixture import balance_loss, choose, expert_load, mean_over_classes


def distinct_logits(shape, bound):
    """Logits without ties; a compiled program may flush subnormals to 0, a tie that NumPy lacks."""
    elements = st.floats(-bound, bound, width=32, allow_subnormal=False)
    return hnp.arrays(np.float32, shape, elements=elements, unique=True)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(logits=distinct_logits((3, 4), 8), top_k=st.integers(1, 4))
def test_the_most_trusted_are_chosen_and_weighted_as_the_rule_says(logits, top_k):
    weights = softmax(logits.astype(np.float64))
    want_experts = np.argsort(-logits, axis=-1)[:, :top_k]
    chosen = np.take_along_axis(weights, want_experts, -1)
    want = {
        "softmax": chosen,
        "renormalized": chosen / chosen.sum(-1, keepdims=True),
        "none": np.ones_like(chosen),
    }
    for combine, want_weights in want.items():
        experts, got = choose(jnp.asarray(logits), top_k, combine)
        np.testing.assert_array_equal(experts, want_experts)
        np.testing.assert_allclose(got, want_weights, rtol=1e-5)


def test_experts_whose_weights_underflow_are_still_ranked():
    logits = jnp.array([[500.0, 0.0, 50.0], [0.0, 500.0, 300.0]])
    experts, weights = choose(logits, 2, "renormalized")
    np.testing.assert_array_equal(experts, [[0, 2], [1, 2]])
    np.testing.assert_allclose(weights, [[1, 0], [1, 0]], atol=1e-7)


def test_the_chosen_expert_is_the_one_of_the_greatest_logit():
    # The two weights of a row round to the same float32.
    logits = jnp.array([[0.0, 1e-8, -30.0], [-30.0, 0.0, 1e-8]])
    np.testing.assert_array_equal(choose(logits, 1, "softmax").experts, [[1], [2]])
    np.testing.assert_allclose(expert_load(logits), [0, 0.5, 0.5])


def test_only_the_softmax_rule_gives_a_top_1_router_a_gradient():
    logits = jnp.array([[0.3, -0.2, 0.1]])

    def gradient(combine):
        return jax.grad(lambda r: jnp.sum(choose(r, 1, combine).weights))(logits)

    a = softmax(np.asarray(logits, np.float64))[0]
    np.testing.assert_allclose(gradient("softmax")[0], a[0] * (np.eye(3)[0] - a), rtol=1e-5)
    np.testing.assert_array_equal(gradient("none"), 0)
    np.testing.assert_allclose(gradient("renormalized"), 0, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(logits=distinct_logits((5, 3), 5))
def test_balance_losses(logits):
    weights = softmax(logits.astype(np.float64))
    share = np.bincount(logits.argmax(-1), minlength=3) / 5
    np.testing.assert_allclose(expert_load(jnp.asarray(logits)), share, rtol=1e-6)
    switch = 3 * (share * weights.mean(0)).sum()
    np.testing.assert_allclose(balance_loss(jnp.asarray(logits), "switch"), switch, rtol=1e-5)
    total = weights.sum(0)
    variation = (total.std() / total.mean()) ** 2
    got = balance_loss(jnp.asarray(logits), "importance")
    np.testing.assert_allclose(got, variation, rtol=1e-4, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(logits=distinct_logits((5, 4), 5), top_k=st.integers(1, 3))
def test_the_load_loss_counts_choices_under_noise(logits, top_k):
    load = np.zeros(4)
    for row in logits.astype(np.float64):
        for i in range(4):
            threshold = np.sort(np.delete(row, i))[-top_k]
            load[i] += norm.cdf((row[i] - threshold) / (1 / 4))
    variation = (load.std() / load.mean()) ** 2
    given_logits = jnp.asarray(logits)
    got = balance_loss(given_logits, "load", top_k=top_k)
    np.testing.assert_allclose(got, variation, rtol=1e-3, atol=1e-5)
    half = (variation + balance_loss(given_logits, "importance")) / 2
    both = balance_loss(given_logits, "v-moe", top_k=top_k)
    np.testing.assert_allclose(both, half, rtol=1e-3, atol=1e-5)


def test_balance_losses_of_an_even_and_of_a_collapsed_router():
    even, collapsed = 60 * jnp.eye(4), 60 * jnp.eye(4)[jnp.zeros(4, jnp.int32)]
    np.testing.assert_allclose(balance_loss(even, "switch"), 1, rtol=1e-5)
    np.testing.assert_allclose(balance_loss(collapsed, "switch"), 4, rtol=1e-5)
    np.testing.assert_allclose(balance_loss(even, "importance"), 0, atol=1e-6)
    np.testing.assert_allclose(balance_loss(collapsed, "importance"), 3, rtol=1e-5)
    np.testing.assert_allclose(balance_loss(even, "load"), 0, atol=1e-6)
    np.testing.assert_allclose(balance_loss(collapsed, "load"), 3, rtol=1e-5)
    half = balance_loss(collapsed.astype(jnp.bfloat16), "load")
    np.testing.assert_allclose(half, 3, rtol=1e-2)
    with pytest.raises(ValueError, match="all 4 experts see every example; expected top_k below"):
        balance_loss(collapsed, "v-moe", top_k=4)


@pytest.mark.parametrize(
    ("kind", "favour"), [("switch", 3.0), ("importance", 3.0), ("load", 0.7), ("v-moe", 3.0)]
)
def test_following_a_balance_loss_evens_the_load(kind, favour):
    # The load's own gradient fades where no noise could change the choice: see 0.7.
    favourite = np.array([favour, 0, 0, 0])
    drawn = np.random.default_rng(0).normal(size=(32, 4)) * favour / 3
    logits = jnp.asarray(drawn + favourite, jnp.float32)
    step = jax.jit(lambda r: r - 20 * jax.grad(balance_loss)(r, kind))
    before = float(expert_load(logits).max())
    for _ in range(30):
        logits = step(logits)
    assert before > 0.9
    assert float(jax.nn.softmax(logits).mean(0).max()) < 0.5
    assert float(expert_load(logits).max()) < 0.8


def test_an_unknown_balance_is_refused():
    with pytest.raises(ValueError, match="balance: 'swich' is not one of switch, importance"):
        balance_loss(jnp.zeros((2, 2)), "swich")


def test_a_gates_weights_are_averaged_over_its_classes():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)), jnp.float32)
    weights = jax.nn.softmax(mean_over_classes(logits), axis=-1)
    expected = np.mean(np.asarray(jax.nn.softmax(logits, axis=-1)), axis=1)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    np.testing.assert_array_equal(mean_over_classes(logits[:, 0]), logits[:, 0])
