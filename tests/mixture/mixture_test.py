"""A mixture's outputs: against plain NumPy, and of a batch against those of its clips."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.mixture import (
    apply_dense,
    from_functions,
    from_modules,
    noisy_route,
    stack_experts,
    with_training_route,
)
from jaxmoe.models import PooledRouter, ResNet

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
RNG = np.random.default_rng(0)
NUMPY_PARAMS = {"router": 4 * RNG.normal(size=(6, 4)), "experts": RNG.normal(size=(4, 6, 3))}
NUMPY_X = RNG.uniform(size=(7, 2, 3))
PARAMS = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), NUMPY_PARAMS)
X = jnp.asarray(NUMPY_X, jnp.float32)


def flat(x):
    return x.reshape(x.shape[0], -1)


linear = functools.partial(
    from_functions,
    lambda params, x: flat(x) @ params,
    lambda params, x: jnp.tanh(flat(x) @ params),
    num_experts=4,
)


def plain(params, x, top_k, combine):
    """F of one clip at a time."""
    outputs = []
    for clip in x.reshape(len(x), -1):
        logits = clip @ params["router"]
        weights = np.exp(logits) / np.exp(logits).sum()
        chosen = np.argsort(-logits)[:top_k]
        scale = {"softmax": 1, "renormalized": 1 / weights[chosen].sum(), "none": 0}[combine]
        outputs.append(
            sum(
                (scale * weights[i] if scale else 1) * np.tanh(clip @ params["experts"][i])
                for i in chosen
            )
        )
    return np.stack(outputs)


def assert_independent_of_neighbours(apply, x):
    apply = jax.jit(apply, compiler_options=FAST)
    whole = np.asarray(apply(x))
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_allclose(apply(x[order]), whole[order], rtol=1e-5, atol=1e-5)
    alone = np.concatenate([apply(x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(alone, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("combine", ["softmax", "renormalized", "none"])
@pytest.mark.parametrize(("top_k", "block_size"), [(1, None), (2, 3), (4, None)])
def test_the_formula(combine, top_k, block_size):
    moe = linear(top_k=top_k, combine=combine, block_size=block_size)
    want = plain(NUMPY_PARAMS, NUMPY_X, top_k, combine)
    np.testing.assert_allclose(jax.jit(moe.apply)(PARAMS, X), want, rtol=1e-4, atol=1e-5)
    dense = jax.jit(functools.partial(apply_dense, moe))
    np.testing.assert_allclose(dense(PARAMS, X), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 3])
def test_a_batch_equals_its_clips_one_by_one_in_any_order(top_k):
    moe = linear(top_k=top_k)
    assert_independent_of_neighbours(functools.partial(moe.apply, PARAMS), X)


def test_a_batch_of_a_convolutional_mixture_equals_its_clips():
    moe = from_modules(
        PooledRouter(3, grid=(1, 2, 2)),
        ResNet(5, width=4, stage_sizes=(1,), stem="small"),
        num_experts=3,
    )
    x = jnp.asarray(np.random.default_rng(2).uniform(size=(4, 2, 4, 4, 1)), jnp.float32)
    params = jax.jit(moe.init, compiler_options=FAST)(jax.random.key(0), x)
    params["router"] = jax.tree.map(lambda leaf: 30 * leaf, params["router"])
    chosen = moe.route(params, x).argmax(-1)
    assert len(set(chosen.tolist())) > 1, "one expert for all clips shows nothing"
    assert_independent_of_neighbours(functools.partial(moe.apply, params), x)
    # Every expert was drawn from its own key.
    kernels = params["experts"]["params"]["head"]["kernel"]
    assert kernels.shape[0] == 3
    assert not np.allclose(kernels[0], kernels[1])


def test_one_all_and_selected_experts_agree():
    moe = linear(top_k=2)
    want = np.stack([np.tanh(flat(NUMPY_X) @ p) for p in NUMPY_PARAMS["experts"]])
    np.testing.assert_allclose(moe.experts(PARAMS, X), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moe.expert(PARAMS, X, 2), want[2], rtol=1e-4, atol=1e-5)
    experts = np.array([[3, 0], [1, 2], [0, 1], [3, 2], [0, 3], [2, 0], [1, 3]])
    got = moe.select(PARAMS, X, jnp.asarray(experts))
    wanted = [[want[i, clip] for i in row] for clip, row in enumerate(experts)]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"router": np.ones((2, 3)), "experts": {"w": np.ones((2, 2, 5))}}, r"experts\['w'\] .*3"),
        ({"router": np.ones((2, 3)), "experts": {"w": np.ones((4, 2, 5))}}, r"\[4, 2, 5\]; .*3"),
        ({"router": np.ones((2, 3))}, r"params: keys \['router'\]; expected .*'experts'"),
        (3, "params: int; expected a dict"),
    ],
)
@pytest.mark.parametrize("top_k", [1, 3])
def test_params_that_lack_experts_are_refused(params, said, top_k):
    mixture = from_functions(
        lambda p, x: x @ p, lambda p, x: x @ p["w"], num_experts=3, top_k=top_k
    )
    with pytest.raises(ValueError, match=said):
        mixture.apply(params, jnp.ones((4, 2)))


def test_dense_predictions_keep_their_spatial_axes():
    moe = from_functions(
        lambda params, x: x.mean((1, 2)) @ params,
        lambda params, x: jnp.einsum("bhwc,ck->bhwk", x, params),
        num_experts=2,
        combine="none",
    )
    x = jnp.asarray(RNG.uniform(size=(3, 4, 4, 2)), jnp.float32)
    experts = jnp.asarray(RNG.normal(size=(2, 2, 5)), jnp.float32)
    got = moe.apply({"router": jnp.array([[0.0, 9.0], [0.0, 9.0]]), "experts": experts}, x)
    np.testing.assert_allclose(got, np.asarray(x) @ np.asarray(experts[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 4])
def test_noise_on_router_logits_changes_the_route(top_k):
    mixture = linear(top_k=top_k, combine="none")
    away = 1e3 * jax.nn.one_hot(jnp.arange(len(X)) % 4, 4)
    noisy = with_training_route(mixture, noisy_route(mixture.route, away))
    np.testing.assert_array_equal(noisy.route(PARAMS, X), mixture.route(PARAMS, X))
    experts = mixture.experts(PARAMS, X)
    sent = experts[jnp.arange(len(X)) % 4, jnp.arange(len(X))]
    expected = sent if top_k == 1 else experts.sum(0)
    np.testing.assert_allclose(noisy.apply(PARAMS, X), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(AssertionError):
        noisy.apply(PARAMS, X[:3])


def test_trees_of_single_experts_are_stacked():
    stacked = stack_experts([{"w": jnp.ones(2) * i} for i in range(3)])
    np.testing.assert_array_equal(stacked["w"], [[0, 0], [1, 1], [2, 2]])


def test_params_must_come_from_somewhere():
    with pytest.raises(ValueError, match="without `init`"):
        linear().init(jax.random.key(0), X)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": 5}, r"mixture.top_k: 5 is not from 1 to mixture.experts = 4"),
        ({"top_k": 0}, r"mixture.top_k: 0"),
        ({"combine": "soft"}, r"mixture.combine: 'soft' is not one of softmax, renormalized, none"),
        ({"block_size": 0}, r"mixture.block_size: 0"),
        ({"num_experts": 0}, r"mixture.experts: 0"),
    ],
)
def test_impossible_mixtures_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        linear(**fields)


def test_a_router_may_return_indices_and_no_other_shape():
    expert = lambda params, x: params * x[:, :3]  # noqa: E731
    params = {"router": 0.0, "experts": jnp.array([1.0, -1.0])}
    x = jnp.arange(12.0).reshape(4, 3)
    indices = from_functions(
        lambda _, x: (x[:, 0] > 3).astype(jnp.int32), expert, num_experts=2, combine="none"
    )
    np.testing.assert_array_equal(indices.route(params, x), [[1, 0], [1, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(indices.apply(params, x), x * jnp.array([[1], [1], [-1], [-1.0]]))
    wrong = from_functions(lambda _, x: x, expert, num_experts=2)
    with pytest.raises(
        ValueError, match=r"router: an output of shape \(4, 3\) for 4 examples; exp"
    ):
        wrong.route(params, x)
