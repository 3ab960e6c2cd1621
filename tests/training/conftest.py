"""A mixture small enough to train in a test: a linear router, tanh experts, four frames."""

import jax
import numpy as np
import pytest

from jaxmoe.attacks.edge import to_pixels
from jaxmoe.mixture import Mixture, from_functions
from jaxmoe.training import Batch

EXPERTS, CLASSES, SHAPE = 4, 3, (4, 3, 3, 1)


def tiny_mixture(top_k: int = 1, experts: int = EXPERTS) -> Mixture:
    features = int(np.prod(SHAPE))

    def flat(x):
        return x.reshape(x.shape[0], -1)

    def init(key, x):
        del x
        keys = jax.random.split(key, 3)
        return {
            "router": {"w": jax.random.normal(keys[0], (features, experts))},
            "experts": {
                "w": jax.random.normal(keys[1], (experts, features, CLASSES)),
                "b": jax.random.normal(keys[2], (experts, CLASSES)),
            },
        }

    return from_functions(
        lambda params, x: flat(x) @ params["w"],
        lambda params, x: jax.numpy.tanh(flat(x) @ params["w"]) + params["b"][None],
        num_experts=experts,
        top_k=top_k,
        init=init,
    )


def tiny_batch(clips: int = 8, seed: int = 0) -> Batch:
    draw = np.random.default_rng(seed)
    return Batch(
        draw.integers(0, 256, (clips, *SHAPE), dtype=np.uint8),
        draw.integers(0, CLASSES, clips).astype(np.int32),
        np.arange(clips, dtype=np.int32) + 100,
    )


class OneBatch:
    """Batches of a loop: the same one for ever."""

    def __next__(self):
        return tiny_batch()._asdict()

    def get_state(self):
        return 0

    def set_state(self, state):
        pass


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to an integer count, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def mixture() -> Mixture:
    return tiny_mixture()


@pytest.fixture(scope="session")
def params(mixture):
    return mixture.init(jax.random.key(0), None)


@pytest.fixture(scope="session")
def clips():
    """Four clips, the same with noise, and their labels."""
    batch = tiny_batch(4, seed=5)
    x = to_pixels(jax.numpy.asarray(batch.clip))
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, x.shape).astype(np.float32)
    return x, jax.numpy.clip(x + noise, 0, 1), batch.label
