"""The ResNet against the papers' architectures and against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.models import ResNet


def clips(shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random(shape), dtype)


def shapes_of(model, shape):
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def count(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def expected_count(blocks, classes, width=64):
    """By hand: convolutions without bias, two numbers per normalised channel, a linear head."""
    total, channels = 7**3 * 3 * width + 2 * width, width
    for stage, number in enumerate(blocks):
        features = width * 2**stage
        for block in range(number):
            total += 27 * channels * features + 27 * features**2 + 4 * features
            if block == 0 and stage > 0:
                total += channels * features + 2 * features
            channels = features
    return total + channels * classes + classes


@pytest.mark.parametrize(
    ("depth", "blocks", "millions"),
    [(10, (1, 1, 1, 1), 14.6), (18, (2, 2, 2, 2), 33.4), (34, (3, 4, 6, 3), 63.7)],
)
def test_parameters_are_those_of_the_paper(depth, blocks, millions):
    params = shapes_of(ResNet(400, depth=depth), (1, 16, 112, 112, 3))["params"]
    assert count(params) == expected_count(blocks, 400)
    assert round(count(params) / 1e6, 1) == millions


def test_on_images_it_is_cifars_resnet18():
    model = ResNet(10, depth=18, stem="small", stem_strides=(1, 1, 1))
    # The usual count of the 32 × 32 network: 11.17 million with two numbers a normalised channel.
    assert count(shapes_of(model, (1, 32, 32, 3))["params"]) == 11_173_962


def test_on_images_it_is_imagenets_resnet18():
    shapes = shapes_of(ResNet(1000, depth=18, stem_strides=(1, 2, 2)), (1, 224, 224, 3))
    assert count(shapes["params"]) == 11_689_512  # torchvision's `resnet18`


def test_stages_have_the_papers_shapes():
    model = ResNet(400, depth=18)
    shape = (1, 16, 112, 112, 3)

    def run(x):
        variables = model.init(jax.random.key(0), x)
        return model.apply(variables, x, mutable=["intermediates"])

    logits, state = jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32))
    stages = {name: value[0].shape for name, value in state["intermediates"].items()}
    assert logits.shape == (1, 400)
    assert stages == {
        "stage1": (1, 8, 28, 28, 64),
        "stage2": (1, 4, 14, 14, 128),
        "stage3": (1, 2, 7, 7, 256),
        "stage4": (1, 1, 4, 4, 512),
    }


def small(**fields) -> ResNet:
    return ResNet(**{"num_classes": 3, "width": 4, "stage_sizes": (1, 1), **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"stem": "small"},
        {"stem": "small", "stem_strides": (1, 1, 1), "shortcut": "zero_pad"},
        {"stem": "large", "norm": "frozen_batch"},
        {"stem": "small", "dtype": jnp.bfloat16},
        {"stem": "small", "stem_strides": (1, 1, 1), "shape": (3, 9, 8, 3)},
    ],
)
def test_a_clips_logits_do_not_depend_on_its_neighbours(fields, variables_of):
    fields = dict(fields)
    x = clips(fields.pop("shape", (3, 2, 9, 8, 3)))
    model = small(**fields)
    params = variables_of(model, x)
    apply = jax.jit(model.apply)
    logits = apply(params, x)
    assert logits.dtype == jnp.float32
    assert not logits.aval.weak_type
    tolerance = 5e-2 if fields.get("dtype") == jnp.bfloat16 else 1e-4
    for i in range(3):  # among copies of itself, so that one program serves
        alone = apply(params, jnp.broadcast_to(x[i : i + 1], x.shape))[:1]
        np.testing.assert_allclose(logits[i : i + 1], alone, rtol=tolerance, atol=tolerance)


def test_zero_pad_shortcut_has_no_params():
    names = shapes_of(small(shortcut="zero_pad"), (1, 4, 16, 16, 3))["params"]["stage2_block1"]
    assert set(names) == {"conv1", "norm1", "conv2", "norm2"}


def test_input_gradient_matches_finite_differences(variables_of):
    with jax.enable_x64(True):
        model = small(stem="small", dtype=jnp.float64)
        x = clips((2, 4, 8, 8, 3), jnp.float64)
        params = variables_of(model, x)
        params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
        single = jax.tree.map(lambda p: p.astype(jnp.float32), params)

        def loss(model, params, x):
            return -jnp.sum(jax.nn.log_softmax(model.apply(params, x))[:, 0])

        def gradient(model, params, x):
            return jax.jit(jax.grad(lambda x: loss(model, params, x)))(x)

        analytic = gradient(model, params, x)
        direction = analytic / jnp.sqrt(jnp.sum(jnp.square(analytic)))
        evaluate = jax.jit(lambda x: loss(model, params, x))
        step = 1e-5
        numeric = (evaluate(x + step * direction) - evaluate(x - step * direction)) / (2 * step)
        exact = float(jnp.sum(analytic * direction))
        assert abs(float(numeric) - exact) <= 1e-6 * abs(exact)

        in_float32 = gradient(small(stem="small"), single, x.astype(jnp.float32)).astype(
            jnp.float64
        )
        assert abs(float(numeric - jnp.sum(in_float32 * direction))) <= 1e-4 * abs(exact)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 19}, "depth must be one of"),
        ({"stem": "haro"}, "stem must be one of"),
        ({"norm": "batch"}, "norm must be one of"),
        ({"shortcut": "c"}, "shortcut must be one of"),
        ({"width": 0}, "width must be at least 1"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"stage_sizes": (1, 0)}, "stage_sizes must be"),
        ({"stem_strides": (1, 2)}, "stem_strides must be"),
    ],
)
def test_impossible_fields_are_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        small(**fields)
    assert "\n" not in str(error.value)


def test_what_is_neither_clip_nor_image_is_refused():
    with pytest.raises(ValueError, match=r"\[B, T, H, W, C\] or \[B, H, W, C\]"):
        small().init(jax.random.key(0), jnp.zeros((1, 8, 8)))
