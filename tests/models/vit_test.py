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


def test_parameters_are_those_of_vit_s_16():
    shape = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(VisionTransformer(1000).init, jax.random.key(0), shape)
    # timm's `vit_small_patch16_224`.
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 22_050_664


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
        ({}, (1, 8, 9, 3), "multiples of 4"),
        ({}, (1, 2, 8, 8, 3), r"\[B, H, W, C\]"),
    ],
)
def test_impossible_fields_and_shapes_are_one_line(fields, shape, message):
    with pytest.raises(ValueError, match=message) as error:
        small(**fields).init(jax.random.key(0), jnp.zeros(shape))
    assert "\n" not in str(error.value)
