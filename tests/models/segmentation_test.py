"""DeepLabv3+ and FRRN against the papers' architectures and a slow interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.models import FRRN, DeepLabV3, DeepLabV3Plus, resize
from tests.night import at_night

SMALL = {
    "deeplab_v3": DeepLabV3(5, depth=10, width=4, features=8, rates=(1, 2)),
    "deeplab": DeepLabV3Plus(5, depth=10, width=4, features=8, low_level=4, rates=(1, 2)),
    "frrn_a": FRRN(5, "A", width=4, residual_width=4),
    "frrn_b": FRRN(5, "B", width=4, residual_width=4),
}


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)


def shapes_of(model, shape, **arguments):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    output = jax.eval_shape(lambda v, x: model.apply(v, x, **arguments), variables, x)
    return variables["params"], output


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Units and channels at a half, a quarter, … and up again: table 1 of the paper.
TABLES = {
    "A": [(3, 96), (4, 192), (2, 384), (2, 384), (2, 192), (2, 192), (2, 96)],
    "B": [(3, 96), (4, 192), *[(2, 384)] * 3, (2, 192), (2, 192), (2, 192), (2, 96)],
}


@pytest.mark.parametrize("variant", ["A", at_night("B")])
def test_frrn_has_the_units_of_the_paper(variant):
    params, logits = shapes_of(FRRN(19, variant), (1, 64, 64, 3))
    assert logits.shape == (1, 64, 64, 19)
    conv = lambda window, inputs, outputs: window * inputs * outputs + 2 * outputs  # noqa: E731
    total, channels = conv(25, 3, 48) + 6 * 2 * conv(9, 48, 48) + 48 * 32 + 32, 48
    for units, features in TABLES[variant]:
        for _ in range(units):
            total += conv(9, channels + 32, features) + conv(9, features, features)
            total += features * 32 + 32
            channels = features
    total += (96 + 32) * 48 + 48 + 48 * 19 + 19
    assert count(params) == total


def test_deeplab_is_a_resnet_18_a_pyramid_and_a_decoder():
    params, logits = shapes_of(DeepLabV3Plus(21), (1, 96, 64, 3))
    assert logits.shape == (1, 96, 64, 21)
    backbone = {name: leaf for name, leaf in params.items() if "stage" in name or "stem" in name}
    assert count(backbone) == 11_176_512  # ResNet-18 without its head
    conv = lambda window, inputs, outputs: window * inputs * outputs + 2 * outputs  # noqa: E731
    pyramid = 2 * conv(1, 512, 256) + 3 * conv(9, 512, 256) + conv(1, 5 * 256, 256)
    decoder = conv(1, 64, 48) + conv(9, 256 + 48, 256) + conv(9, 256, 256) + 256 * 21 + 21
    assert count(params) - count(backbone) == pyramid + decoder


def test_deeplab_v3_is_pytorchs():
    params, (logits, features) = shapes_of(DeepLabV3(21), (1, 97, 64, 3), with_features=True)
    assert count(params) == 39_638_869  # torchvision's `deeplabv3_resnet50` without `aux_loss`
    assert logits.shape == (1, 97, 64, 21)
    assert features.shape == (1, 13, 8, 256)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("deeplab_v3", (6, 8, 8)),
        ("deeplab", (3, 4, 8)),
        ("frrn_a", (3, 4, 32)),
        at_night("frrn_b", (2, 2, 32)),
    ],
)
def test_sizes_that_no_stride_divides_come_back_whole(name, features):
    _, (logits, found) = shapes_of(SMALL[name], (2, 45, 60, 3), with_features=True)
    assert logits.shape == (2, 45, 60, 5)
    assert found.shape == (2, *features)


@pytest.mark.parametrize("name", ["deeplab_v3", at_night("deeplab"), at_night("frrn_a")])
def test_an_images_logits_do_not_depend_on_its_neighbours(name, variables_of):
    model, x = SMALL[name], images(2, 17, 20, 3)
    params = variables_of(model, x)
    apply = jax.jit(lambda x: model.apply(params, x, with_features=True))
    together, swapped = apply(x), apply(x[::-1])
    assert together[0].dtype == jnp.float32
    for a, b in zip(together, swapped, strict=True):
        np.testing.assert_allclose(a, b[::-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(together[0], jax.jit(model.apply)(params, x))


@pytest.mark.parametrize(("old", "new"), [((3, 5), (6, 10)), ((4, 6), (9, 7)), ((8, 3), (3, 3))])
def test_resizing_is_linear_interpolation(old, new):
    x = images(2, *old, 3)

    def at(size, number, place):
        where = min(max((place + 0.5) * size / number - 0.5, 0), size - 1)
        low = int(where)
        return low, min(low + 1, size - 1), where - low

    slow = np.zeros((2, *new, 3))
    for i in range(new[0]):
        top, bottom, down = at(old[0], new[0], i)
        for j in range(new[1]):
            left, right, across = at(old[1], new[1], j)
            rows = [
                (1 - across) * x[:, row, left] + across * x[:, row, right] for row in (top, bottom)
            ]
            slow[:, i, j] = (1 - down) * rows[0] + down * rows[1]
    np.testing.assert_allclose(resize(x, new), slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FRRN(5, "C"), "variant must be one of"),
        (lambda: FRRN(5, width=0), "width must be at least 1"),
        (lambda: DeepLabV3Plus(5, depth=51), "depth must be one of"),
        (lambda: DeepLabV3Plus(0), "num_classes must be at least 1"),
    ],
)
def test_impossible_fields_are_one_line(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
