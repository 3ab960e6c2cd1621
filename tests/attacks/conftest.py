"""A small mixture that attacks can be run on, and the same one in plain NumPy, as a reference.

Axes: B = batch, T = frames, M = experts, K = classes. Params are float64; cast them as needed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import build_attack
from jaxmoe.mixture import Mixture, from_functions

M, K = 3, 4


class Small(NamedTuple):
    """Clips, labels, params and the mixture that they belong to."""

    mixture: Callable[..., Mixture]  # (top_k, combine) -> Mixture
    params: Any
    x: np.ndarray
    y: np.ndarray


@pytest.fixture(scope="session")
def small() -> Callable[[tuple[int, ...]], Small]:
    """`small(shape)`: tanh-linear experts and a linear router on clips of a shape."""

    @functools.cache
    def build(shape=(4, 3, 2, 2, 1)):
        rng = np.random.default_rng(0)
        size = int(np.prod(shape[1:]))
        params = {
            "router": rng.normal(size=(size, M)),
            "experts": {"w": rng.normal(size=(M, size, 5)), "v": rng.normal(size=(M, 5, K))},
        }
        return Small(mixture, params, rng.uniform(0.2, 0.8, shape), np.arange(shape[0]) % K)

    def mixture(top_k=1, combine="softmax", block_size=1):
        return from_functions(
            lambda params, x: _flat(x) @ params,
            lambda params, x: jnp.tanh(_flat(x) @ params["w"]) @ params["v"],
            num_experts=M,
            top_k=top_k,
            combine=combine,
            block_size=block_size,
        )

    return build


class Reference:
    """The small mixture and the losses of TLGA (arXiv 2602.01369), clip by clip in NumPy."""

    def __init__(self, small: Small, top_k: int = 1):
        self.params, self.x, self.y, self.top_k = small.params, small.x, small.y, top_k

    def route(self, clip):
        return clip.ravel() @ self.params["router"]

    def expert(self, clip, i):
        experts = self.params["experts"]
        return np.tanh(clip.ravel() @ experts["w"][i]) @ experts["v"][i]

    def chosen(self, clip):
        return np.argsort(-self.route(clip))[: self.top_k]

    def apply(self, clip):
        weights = self.softmax(self.route(clip))
        return sum(weights[i] * self.expert(clip, i) for i in self.chosen(clip))

    @staticmethod
    def softmax(logits):
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()

    @staticmethod
    def cross_entropy(logits, label):
        return np.log(np.exp(logits).sum()) - logits[label]

    @staticmethod
    def quotient(output_adv, output, clip_adv, clip):
        return ((output_adv - output) ** 2).mean() / max(((clip_adv - clip) ** 2).mean(), 1e-12)

    def per_clip(self, loss, x_adv):
        """`loss(clip_adv, clip, label)` of each clip."""
        return np.array([loss(*clip) for clip in zip(x_adv, self.x, self.y, strict=True)])


@pytest.fixture(scope="session")
def run_attack(small) -> Callable[..., Any]:
    """`run_attack(name, key, x, y, threat, settings)`, compiled once for each kind."""
    fast = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

    @functools.partial(jax.jit, static_argnums=0, compiler_options=fast)
    def run(name, params, key, x, y, threat, settings):
        return build_attack(name, small().mixture(), threat, settings)(key, params, x, y)

    def attack(name, key, x, y, threat, settings):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), small(x.shape).params)
        x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)
        # To NumPy: what tests do with it would be compiled for each shape.
        return jax.tree.map(np.asarray, run(name, params, key, x, y, threat, settings))

    return attack


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference


@pytest.fixture(scope="session")
def assert_gradient() -> Callable[..., None]:
    """Compares an objective's values and gradients with finite differences of a reference."""

    def check(objective, reference, small, frozen=None):
        """Both of them map x_adv to [B]; `objective(params, x, y)` builds the first.

        `frozen(x_adv)` returns the function to differentiate where it is not `reference` itself.
        """
        rng = np.random.default_rng(1)
        x_adv = small.x + rng.uniform(-0.05, 0.05, small.x.shape)
        want = _central_differences(frozen(x_adv) if frozen else reference, x_adv)
        for dtype, tolerance in ((jnp.float32, 1e-4), (jnp.float64, 1e-6)):
            with jax.enable_x64(dtype == jnp.float64):
                cast = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, dtype))  # noqa: B023

                @jax.jit
                def both(params, x, y, x_adv):
                    loss = objective(params, x, y)
                    return loss(x_adv), jax.grad(lambda x_adv: jnp.sum(loss(x_adv)))(x_adv)

                value, gradient = both(
                    cast(small.params), cast(small.x), jnp.asarray(small.y), cast(x_adv)
                )
                assert gradient.dtype == dtype
            np.testing.assert_allclose(value, reference(x_adv), rtol=10 * tolerance)
            error = np.linalg.norm(np.asarray(gradient, np.float64) - want)
            assert error <= tolerance * np.linalg.norm(want)

    return check


def _central_differences(function, x, step=1e-5):
    """The gradient of `sum(function(x))`."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        there = np.zeros_like(x)
        there[place] = step
        gradient[place] = (function(x + there) - function(x - there)).sum() / (2 * step)
    return gradient


def _flat(x):
    return x.reshape(x.shape[0], -1)
