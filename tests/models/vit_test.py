"""The vision transformer against the published architecture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.models import VisionTransformer


def images(shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)


def small(**fields) -> VisionTransformer:
    return VisionTransformer(
        **{"num_classes": 3, "patch": 4, "width": 8, "depth": 2, "heads": 2, **fields}
    )


BASE = {"width": 768, "depth": 12, "heads": 12}
TUBELETS = 2 * 16 * 16 * 3 * 768 - 16 * 16 * 3 * 768  # a patch of two frames in place of one
TOKENS = (16 - 1) * 14 * 14 * 768  # positions of 16 times as many


@pytest.mark.parametrize(
    ("fields", "frames", "expected"),
    [
        ({}, (), 22_050_664),  # timm's `vit_small_patch16_224`
        (BASE, (), 86_567_656),  # torchvision's `vit_b_16`
        ({**BASE, "tubelet": 2}, (32,), 86_567_656 + TUBELETS + TOKENS),  # ViViT-B/16x2
    ],
)
def test_parameters_are_those_of_the_published_network(fields, frames, expected):
    shape = jax.ShapeDtypeStruct((1, *frames, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(VisionTransformer(1000, **fields).init, jax.random.key(0), shape)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_tubelets_of_a_frame_are_the_patches_of_an_image(variables_of):
    x = images((2, 1, 8, 8, 3))
    model = small(tubelet=1)
    params = variables_of(model, x)
    of_images = {"params": {**params["params"]}}
    patches = of_images["params"]["patches"]
    of_images["params"]["patches"] = {**patches, "kernel": patches["kernel"][0]}
    expected = jax.jit(small().apply)(of_images, x[:, 0])
    np.testing.assert_allclose(jax.jit(model.apply)(params, x), expected, rtol=1e-4, atol=1e-5)


def test_frames_far_apart_see_each_other_in_the_first_block(variables_of):
    """Attention is joint in space and time: the second logit's gradient reaches every pixel."""
    x, model = images((1, 4, 8, 4, 3)), small(tubelet=2, depth=1)
    params = variables_of(model, x)
    gradient = jax.jit(jax.grad(lambda x: model.apply(params, x)[0, 1]))(x)
    assert np.abs(gradient).max(axis=-1).min() > 0


def test_an_images_logits_do_not_depend_on_its_neighbours(variables_of):
    model, x = small(), images((3, 8, 12, 3))
    params = variables_of(model, x)
    apply = jax.jit(model.apply)
    logits = apply(params, x)
    assert logits.dtype == jnp.float32
    assert logits.shape == (3, 3)
    np.testing.assert_allclose(apply(params, x[::-1])[::-1], logits, rtol=1e-4, atol=1e-5)


def test_tokens_know_where_they_are(variables_of):
    model, x = small(), images((1, 8, 8, 3))
    params = variables_of(model, x)
    swapped = jnp.concatenate([x[:, 4:], x[:, :4]], axis=1)
    apply = jax.jit(model.apply)
    assert not np.allclose(apply(params, x), apply(params, swapped), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"heads": 3}, (1, 8, 8, 3), "width must divide by heads = 3, got 8"),
        ({"depth": 0}, (1, 8, 8, 3), "depth must be at least 1, got 0"),
        ({}, (1, 8, 9, 3), "W a multiple of 4"),
        ({}, (1, 2, 8, 8, 3), r"\[B, H, W, C\]"),
        ({"tubelet": 2}, (1, 8, 8, 3), r"\[B, T, H, W, C\], T a multiple of 2, H a multiple of 4"),
        ({"tubelet": 2}, (1, 3, 8, 8, 3), "T a multiple of 2"),
        ({"tubelet": 0}, (1, 2, 8, 8, 3), "tubelet must be at least 1, got 0"),
    ],
)
def test_impossible_fields_and_shapes_are_one_line(fields, shape, message):
    with pytest.raises(ValueError, match=message) as error:
        small(**fields).init(jax.random.key(0), jnp.zeros(shape))
    assert "\n" not in str(error.value)
