"""What decays, and what is clipped together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.parallel import Shards
from jaxmoe.training import adamw, init_state
from jaxmoe.training.optimizer import clip_by_norms, decays
from tests.training.conftest import tiny_batch
from tests.training.defences_test import stepper


def network(*stacked):
    """A layer, a norm and what a transformer adds, as Flax calls them."""
    return {
        "conv": {"kernel": jnp.ones((*stacked, 3, 3, 2, 4))},
        "norm": {"scale": jnp.ones((*stacked, 4)), "bias": jnp.ones((*stacked, 4))},
        "class_token": jnp.ones((*stacked, 1, 1, 4)),
        "positions": jnp.ones((*stacked, 1, 9, 4)),
        "head": {"kernel": jnp.ones((*stacked, 4, 5)), "bias": jnp.ones((*stacked, 5))},
    }


@pytest.mark.parametrize("part", ["router", "experts"])
def test_kernels_decay_and_norms_biases_and_positions_do_not(part):
    params = {part: network(*[3] * (part == "experts"))}
    found = decays(params)[part]
    assert found["conv"]["kernel"]
    assert found["head"]["kernel"]
    kept = [found["norm"]["scale"], found["norm"]["bias"], found["head"]["bias"]]
    assert not any([*kept, found["class_token"], found["positions"]])
    # What one wrote by hand goes by its rank, whatever it is called.
    assert decays({"experts": {"w": jnp.ones((4, 2, 3)), "b": jnp.ones((4, 3))}}) == {
        "experts": {"w": True, "b": False}
    }
    optimizer, gradient = adamw(0.1, 0.0), jax.tree.map(jnp.zeros_like, params[part])
    updates, _ = optimizer.update(gradient, optimizer.init(params[part]), params[part], acts=found)
    np.testing.assert_allclose(updates["conv"]["kernel"], 0.1)
    np.testing.assert_allclose(updates["norm"]["scale"], 0)


def test_each_expert_is_clipped_by_its_own_norm():
    gradient = {
        "experts": {
            "w": jnp.asarray([[[3.0, 0.0]], [[0.3, 0.0]]]),
            "b": jnp.asarray([[4.0], [0.4]]),
        }
    }
    norms = Shards().norms(gradient)["experts"]
    np.testing.assert_allclose(norms["b"].ravel(), [5.0, 0.5])
    assert norms["w"].shape == (2, 1, 1)
    clipped, _ = clip_by_norms(1.0).update(gradient["experts"], (), norms=norms)
    np.testing.assert_allclose(clipped["w"][:, 0, 0], [0.6, 0.3])
    np.testing.assert_allclose(clipped["b"][:, 0], [0.8, 0.4])


def test_the_rest_of_a_part_is_clipped_together():
    gradient = {"router": {"w": jnp.asarray([[3.0]]), "b": jnp.asarray([4.0])}}
    norms = Shards().norms(gradient)["router"]
    assert float(norms["w"]) == float(norms["b"]) == 5.0


def test_a_step_clips_each_expert_by_its_own_norm(mixture, params):
    """The step's recipe has the gradient 2 (w − 1)."""
    clip = clip_by_norms(20.0)
    step = stepper(mixture, clip, rate=1.0)
    after, _ = step(init_state(params, clip), tiny_batch(), jax.random.key(0))
    gradient = jax.tree.map(lambda leaf: 2 * (np.asarray(leaf) - 1), params)
    w, b = gradient["experts"]["w"], gradient["experts"]["b"]
    norms = np.sqrt(np.sum(w**2, axis=(1, 2)) + np.sum(b**2, axis=1))
    assert norms.min() > 20
    taken = {name: params["experts"][name] - after.params["experts"][name] for name in ("w", "b")}
    np.testing.assert_allclose(taken["w"], w * 20 / norms[:, None, None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(taken["b"], b * 20 / norms[:, None], rtol=1e-4, atol=1e-5)


def test_a_step_leaves_the_biases_of_stacked_experts_to_their_gradient(mixture, params):
    """Adam's first update is the sign of the gradient, whatever its size."""
    optimizer = adamw(0.5, 0.0)
    step = stepper(mixture, optimizer, rate=0.1)
    after, _ = step(init_state(params, optimizer), tiny_batch(), jax.random.key(0))
    for part, name, decay in (
        ("router", "w", 0.5),
        ("experts", "w", 0.5),
        ("experts", "b", 0.0),
    ):
        before = np.asarray(params[part][name])
        expected = before - 0.1 * (np.sign(before - 1) + decay * before)
        np.testing.assert_allclose(after.params[part][name], expected, rtol=1e-4, atol=1e-5)
