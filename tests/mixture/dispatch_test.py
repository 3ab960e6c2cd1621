"""Sparse dispatch against a plain loop over clips and experts: nothing dropped, same gradients."""

import functools
import re

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.mixture import dispatch
from jaxmoe.mixture.dispatch import make_plan, num_blocks
from jaxmoe.models import conv

B, M, D, K = 7, 4, 3, 2
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.normal(size=(M, D, 5)), "v": RNG.normal(size=(M, 5, K))}
X = RNG.uniform(size=(B, D))
COTANGENT = RNG.normal(size=(B, 3, K))


def expert(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def loop(experts):
    """Values and, by hand, gradients in params and x of `sum(COTANGENT · outputs)`."""
    k = experts.shape[1]
    outputs = np.zeros((B, k, K))
    params_gradient = jax.tree.map(np.zeros_like, PARAMS)
    x_gradient = np.zeros_like(X)
    for clip in range(B):
        for place in range(k):
            index = experts[clip, place]
            w, v = PARAMS["w"][index], PARAMS["v"][index]
            hidden = np.tanh(X[clip] @ w)
            outputs[clip, place] = hidden @ v
            out = COTANGENT[clip, place]
            before = (v @ out) * (1 - hidden**2)
            params_gradient["v"][index] += np.outer(hidden, out)
            params_gradient["w"][index] += np.outer(X[clip], before)
            x_gradient[clip] += w @ before
    return outputs, params_gradient, x_gradient


@functools.partial(jax.jit, static_argnums=3, compiler_options=FAST)
def values_and_gradients(params, x, experts, block_size):
    def loss(params, x):
        outputs = dispatch(expert, params, x, experts, block_size)
        cotangent = jnp.asarray(COTANGENT[:, : experts.shape[1]], x.dtype)
        return jnp.sum(outputs * cotangent), outputs

    gradients, outputs = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    return outputs, *gradients


def routings(k):
    """Random, everything to one expert, and one expert left out."""
    rng = np.random.default_rng(k)
    random = np.stack([rng.permutation(M)[:k] for _ in range(B)])
    one = np.broadcast_to((np.arange(k) + M - 1) % M, (B, k))
    return [random, one, np.where(random == 1, 2, random)]


def relative_error(got, want):
    got, want = (
        np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])
        for tree in (got, want)
    )
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize(
    ("k", "block_size"), [(1, 1), (1, 3), (1, 20), (1, None), (2, 4), (3, None)]
)
def test_values_and_gradients_equal_a_loop_however_unbalanced_the_routing(k, block_size):
    as_float32 = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.float32))
    for experts in routings(k):
        got = values_and_gradients(
            as_float32(PARAMS), as_float32(X), jnp.asarray(experts, jnp.int32), block_size
        )
        for ours, want in zip(got, loop(experts), strict=True):
            assert relative_error(ours, want) <= 1e-5


def test_gradients_in_double_precision():
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, PARAMS)
        for experts in routings(2):
            got = values_and_gradients(params, jnp.asarray(X), jnp.asarray(experts), 3)
            for ours, want in zip(got, loop(experts), strict=True):
                assert relative_error(ours, want) <= 1e-12


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([(9, 3, 2), (9, 3, 4), (1, 4, 3), (16, 5, 1)]),
    data=st.data(),
)
def test_every_pair_has_its_own_slot_in_a_block_of_its_expert(size, data):
    pairs, num_experts, block_size = size
    experts = np.array(data.draw(st.lists(st.integers(0, num_experts - 1), min_size=pairs,
                                          max_size=pairs)))  # fmt: skip
    plan = jax.tree.map(np.asarray, make_plan(jnp.asarray(experts), num_experts, block_size))
    assert len(set(plan.pair_slot)) == pairs
    np.testing.assert_array_equal(plan.slot_pair.ravel()[plan.pair_slot], np.arange(pairs))
    block = plan.pair_slot // block_size
    np.testing.assert_array_equal(plan.block_expert[block], experts)
    np.testing.assert_array_equal(np.flatnonzero(plan.block_used), np.unique(block))
    # What fills a block up was sent to that expert as well.
    for row, index, used in zip(plan.slot_pair, plan.block_expert, plan.block_used, strict=True):
        assert not used or (experts[row] == index).all()


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=8), block_size=st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_no_spread_of_the_pairs_needs_more_blocks_than_there_are(counts, block_size):
    counts[0] += not any(counts)
    needed = sum(-(-count // block_size) for count in counts)
    assert needed <= num_blocks(sum(counts), len(counts), block_size)


def test_a_clip_never_meets_an_expert_that_it_was_not_sent_to():
    # Expert 1's gradient at the first clip would be 0 · ∞.
    def root(params, x):
        return jnp.sqrt(jnp.maximum(x - params, 0))

    params = jnp.array([0.0, 0.5])
    x, experts = jnp.array([[0.2], [0.9], [0.8]]), jnp.array([[0], [1], [1]])

    def total(params, x):
        return jnp.sum(dispatch(root, params, x, experts, block_size=3))

    for gradient in jax.tree.leaves(jax.jit(jax.grad(total, argnums=(0, 1)))(params, x)):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("argument", [0, 1])
def test_no_gradient_keeps_a_copy_of_the_params_for_each_block(argument):
    experts, inputs, hidden, batch, block_size = 8, 64, 512, 32, 2
    params = {"w": jnp.ones((experts, inputs, hidden)), "v": jnp.ones((experts, hidden, 4))}
    routing = jnp.arange(batch)[:, None] % experts

    def total(params, x):
        return jnp.sum(dispatch(expert, params, x, routing, block_size))

    gradient = jax.jit(jax.grad(total, argnums=argument))
    compiled = gradient.lower(params, jnp.ones((batch, inputs))).compile()
    all_experts = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    copies = num_blocks(batch, experts, block_size) * all_experts / experts
    used = compiled.memory_analysis().temp_size_in_bytes
    assert used < all_experts < copies


@pytest.mark.parametrize("argument", [0, 1])
def test_no_gradient_repeats_a_convolution_or_a_matmul(argument):
    def convolutional(params, x):
        hidden = jnp.tanh(conv(x, params["first"]))
        return jnp.tanh(conv(hidden, params["second"])).mean(1) @ params["head"]

    kernels = jnp.ones((3, 5, 3, 3))
    params = {"first": kernels, "second": kernels, "head": jnp.ones((3, 3, 2))}
    x, routing = jnp.ones((6, 16, 3)), jnp.arange(6)[:, None] % 3

    def products(apply):
        def total(params, x):
            return jnp.sum(jnp.square(apply(params, x)))

        gradient = jax.jit(jax.grad(total, argnums=argument), compiler_options=FAST)
        text = gradient.lower(params, x).compile().as_text()
        return len(re.findall(r" (?:convolution|dot)\(", text))

    one = products(lambda params, x: convolutional(jax.tree.map(lambda p: p[0], params), x))
    assert products(lambda params, x: dispatch(convolutional, params, x, routing, 2)) == one


@pytest.mark.parametrize("argument", [0, 1])
def test_what_the_backward_pass_repeats_stays_where_it_is_used(argument):
    def expert(params, x):
        return jnp.tanh(jnp.tanh(x @ params) @ params)

    def total(params, x):
        return jnp.sum(jnp.square(dispatch(expert, params, x, jnp.arange(6)[:, None] % 3, 2)))

    def conds(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "cond":
                yield equation
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from conds(inner)

    gradient = jax.make_jaxpr(jax.grad(total, argnums=argument))(
        jnp.ones((3, 4, 4)), jnp.ones((6, 4))
    )
    *_, backward = conds(gradient.jaxpr)
    assert "tanh" in str(backward)
