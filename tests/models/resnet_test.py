"""The ResNet against the papers' architectures and against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.models import BasicBlock, GroupNorm, ResNet
from jaxmoe.models.residual import temporal_shift
from tests.night import at_night


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


CLIPS, IMAGES = (1, 16, 112, 112, 3), (1, 224, 224, 3)
CIFAR20 = {"width": 16, "stage_sizes": (3, 3, 3), "stem": "small", "stem_strides": (1, 1, 1)}


@pytest.mark.parametrize(
    ("fields", "shape", "expected"),
    [
        # torchvision's r3d_18, r2plus1d_18, mc3_18 and resnet50, of 400 and of 1000 classes
        ({"stem": "video"}, CLIPS, 33_371_472),
        ({"stem": "video", "convolution": "factored"}, CLIPS, 31_505_325),
        ({"stem": "video", "convolution": "mixed"}, CLIPS, 11_695_440),
        ({"depth": 50, "num_classes": 1000}, IMAGES, 25_557_032),
        # the same without 600 rows of the head: a shift has no params
        ({"depth": 50, "convolution": "shift"}, (1, 8, 224, 224, 3), 25_557_032 - 600 * 2049),
        # He et al. 2016, table 6: 0.27 million
        (
            {**CIFAR20, "num_classes": 10, "shortcut": "zero_pad_around"},
            (1, 32, 32, 3),
            269_722,
        ),
    ],
)
def test_parameters_are_those_of_the_published_network(fields, shape, expected):
    model = ResNet(**{"num_classes": 400, **fields})
    assert count(shapes_of(model, shape)["params"]) == expected


def stage_shapes(model, shape):
    def run(x):
        variables = model.init(jax.random.key(0), x)
        return model.apply(variables, x, mutable=["intermediates"])

    logits, state = jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32))
    stages = {name: value[0].shape for name, value in state["intermediates"].items()}
    return logits.shape, stages


@pytest.mark.parametrize(
    ("fields", "first", "last"),
    [
        at_night({"stem": "video", "convolution": "factored"}, (16, 56, 56, 64), (2, 7, 7, 512)),
        ({"stem": "video", "convolution": "mixed"}, (16, 56, 56, 64), (16, 7, 7, 512)),
        ({"convolution": "shift"}, (16, 28, 28, 64), (16, 4, 4, 512)),
        at_night({"depth": 50}, (8, 28, 28, 256), (1, 4, 4, 2048)),
    ],
)
def test_time_is_strided_where_convolutions_span_it(fields, first, last):
    logits, stages = stage_shapes(ResNet(400, **fields), CLIPS)
    assert logits == (1, 400)
    assert (stages["stage1"][1:], stages["stage4"][1:]) == (first, last)


def test_factored_convolutions_have_the_authors_channels():
    params = shapes_of(ResNet(400, stem="video", convolution="factored"), CLIPS)["params"]
    assert params["stem"]["space"]["kernel"].shape == (1, 7, 7, 3, 45)
    assert params["stem"]["time"]["kernel"].shape == (3, 1, 1, 45, 64)
    # Both convolutions of a block take the block's own channels into account.
    for conv, channels in (("conv1", 64), ("conv2", 128)):
        kernels = params["stage2_block1"][conv]
        assert kernels["space"]["kernel"].shape == (1, 3, 3, channels, 230)
        assert kernels["time"]["kernel"].shape == (3, 1, 1, 230, 128)


def test_stages_have_the_papers_shapes():
    logits, stages = stage_shapes(ResNet(400, depth=18), CLIPS)
    assert logits == (1, 400)
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
        at_night({"stem": "small", "stem_strides": (1, 1, 1), "shortcut": "zero_pad"}),
        at_night({"stem": "large", "norm": "frozen_batch"}),
        at_night({"stem": "small", "dtype": jnp.bfloat16}),
        at_night({"stem": "small", "stem_strides": (1, 1, 1), "shape": (3, 9, 8, 3)}),
        at_night({"depth": 50, "width": 2, "stem": "video", "convolution": "factored"}),
        {"stem": "video", "convolution": "mixed"},
        {"depth": 50, "width": 8, "convolution": "shift", "shape": (3, 3, 9, 8, 3)},
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


@pytest.mark.parametrize(("shortcut", "before"), [("zero_pad", 0), ("zero_pad_around", 2)])
def test_a_shortcut_of_zeros_takes_every_other_position(shortcut, before, variables_of):
    """Four channels become eight, with zeros behind them, or two before and two behind."""
    block = BasicBlock(8, 2, GroupNorm, shortcut, jnp.float32)
    x = clips((1, 3, 5, 4, 4))
    params = variables_of(block, x)["params"]
    assert set(params) == {"conv1", "norm1", "conv2", "norm2"}
    params = jax.tree.map(jnp.zeros_like, params)  # nothing comes from the other branch
    expected = np.zeros((1, 2, 3, 2, 8), np.float32)
    expected[..., before : before + 4] = x[:, ::2, ::2, ::2]
    np.testing.assert_array_equal(block.apply({"params": params}, x), expected)


def test_a_shift_takes_channels_from_the_frames_beside():
    x = np.random.default_rng(0).random((2, 4, 1, 2, 17), np.float32)
    expected = x.copy()
    for t in range(4):  # two of 17 channels each way
        expected[:, t, ..., :2] = x[:, t + 1, ..., :2] if t < 3 else 0
        expected[:, t, ..., 2:4] = x[:, t - 1, ..., 2:4] if t > 0 else 0
    np.testing.assert_array_equal(temporal_shift(jnp.asarray(x)), expected)


def test_a_shifted_network_is_that_of_images_but_for_the_shift(variables_of):
    """A clip of one frame: the shift puts zeros into two channels of eight, of the branch alone."""
    x = clips((2, 1, 9, 8, 3))
    model = small(width=8, stage_sizes=(1,), convolution="shift")
    params = variables_of(model, x)
    of_images = jax.tree.map(lambda p: p[0] if p.ndim == 5 else p, params)
    kernel = of_images["params"]["stage1_block1"]["conv1"]["kernel"]
    of_images["params"]["stage1_block1"]["conv1"]["kernel"] = kernel.at[:, :, :2].set(0.0)
    expected = jax.jit(small(width=8, stage_sizes=(1,)).apply)(of_images, x[:, 0])
    np.testing.assert_allclose(jax.jit(model.apply)(params, x), expected, rtol=1e-5, atol=1e-5)


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
        ({"convolution": "3d"}, "convolution must be one of"),
        ({"convolution": "shift"}, "width must be at least 8 to shift an eighth of it, got 4"),
    ],
)
def test_impossible_fields_are_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        small(**fields)
    assert "\n" not in str(error.value)


def test_what_is_neither_clip_nor_image_is_refused():
    with pytest.raises(ValueError, match=r"\[B, T, H, W, C\] or \[B, H, W, C\]"):
        small().init(jax.random.key(0), jnp.zeros((1, 8, 8)))


def test_images_have_no_time_to_see():
    with pytest.raises(
        ValueError, match=r"x must be \[B, T, H, W, C\] where convolution = 'mixed'"
    ):
        small(convolution="mixed").init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
