"""SlowFast against the published network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.models import SlowFast
from tests.night import at_night


def clips(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)


def small(**fields) -> SlowFast:
    sizes = {"depth": 18, "width": 8, "stage_sizes": (1, 1), "frame_ratio": 4, "channel_ratio": 4}
    return SlowFast(**{"num_classes": 3, "stem": "small", **sizes, **fields})


@pytest.mark.parametrize(
    ("fields", "millions"),
    [({"frame_ratio": 4, "lateral_window": 7}, 34.57), at_night({}, 34.48)],
)
def test_parameters_are_those_of_the_published_networks(fields, millions):
    """8 × 8 and 4 × 16 of PyTorchVideo's and of the authors' lists of models."""
    x = jax.ShapeDtypeStruct((1, 32, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(SlowFast(400, **fields).init, jax.random.key(0), x)
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) / 1e6, 2) == millions


def test_stages_have_the_papers_shapes():
    """Table 1: no stride in time, and channels of 8 to 1."""
    model = SlowFast(400)

    def run(x):
        return model.init_with_output(jax.random.key(0), x, mutable=["params", "intermediates"])

    logits, state = jax.eval_shape(run, jax.ShapeDtypeStruct((1, 32, 224, 224, 3), jnp.float32))
    assert logits.shape == (1, 400)
    for stage, (side, channels) in enumerate([(56, 256), (28, 512), (14, 1024), (7, 2048)], 1):
        slow, fast = state["intermediates"][f"stage{stage}"][0]
        assert slow.shape == (1, 4, side, side, channels)
        assert fast.shape == (1, 32, side, side, channels // 8)
    kernel = state["params"]["lateral2"]["kernel"]
    assert kernel.shape == (5, 1, 1, 32, 64)
    windows = [
        state["params"][f"{pathway}_stage{stage}_block1"]["conv1"]["kernel"].shape[:3]
        for pathway in ("slow", "fast")
        for stage in (1, 2, 3, 4)
    ]
    assert windows == [(1, 1, 1)] * 2 + [(3, 1, 1)] * 6


def test_a_clips_logits_do_not_depend_on_its_neighbours(variables_of):
    x, model = clips(3, 5, 9, 7, 3), small()
    params = variables_of(model, x)
    apply = jax.jit(model.apply)
    logits = apply(params, x)
    assert (logits.shape, logits.dtype) == ((3, 3), jnp.float32)
    np.testing.assert_allclose(apply(params, x[::-1])[::-1], logits, rtol=1e-4, atol=1e-5)


def test_the_slow_pathway_takes_every_fourth_frame_and_the_lateral_ones_the_rest(variables_of):
    x, model = clips(1, 6, 5, 6, 3), small()
    params = variables_of(model, x)
    cut = jax.tree.map(jnp.array, params)
    for name in ("lateral1", "lateral2"):
        cut["params"][name]["kernel"] *= 0.0
    cut["params"]["head"]["kernel"] = cut["params"]["head"]["kernel"].at[16:].set(0.0)
    apply = jax.jit(model.apply)
    before, whole = apply(cut, x), apply(params, x)
    for frame in range(6):
        changed = x.at[:, frame].set(1.0 - x[:, frame])
        seen = not np.allclose(apply(cut, changed), before, atol=1e-6)
        assert seen == (frame in (0, 4))
        assert not np.allclose(apply(params, changed), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 6}, "width must divide by channel_ratio = 4, got 6"),
        ({"lateral_window": 4}, "lateral_window must be odd, got 4"),
        ({"frame_ratio": 0}, "frame_ratio must be at least 1, got 0"),
        ({"depth": 20}, "depth must be one of"),
        ({"stage_sizes": (0,)}, "stage_sizes must be"),
    ],
)
def test_impossible_fields_are_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        small(**fields)
    assert "\n" not in str(error.value)


def test_images_are_refused():
    with pytest.raises(ValueError, match=r"x must be \[B, T, H, W, C\], got shape"):
        small().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
