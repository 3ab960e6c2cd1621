"""Imported networks against the same written out in NumPy, and files that fit no network."""

import functools

import jax
import numpy as np
import pytest

from jaxmoe.models.weights import LAYOUTS, read
from tests.models.weights import published
from tests.models.weights.written import write_safetensors, write_zip
from tests.night import at_night

CLASSES = 5
IMAGE, CLIP = (2, 3, 32, 24), (2, 3, 4, 24, 16)
resnet, video = published.resnet, published.torchvision_video
# Layout, network and input of each published name; widths are as small as layouts take.
NETWORKS = {
    "resnet18": ("torchvision_resnet", functools.partial(resnet, stages=(2, 1)), IMAGE),
    "resnet50": ("torchvision_resnet", functools.partial(resnet, bottleneck=True), IMAGE),
    "cifar_option_a": (
        "cifar_resnet",
        functools.partial(resnet, head="linear", small=True, shortcut="around"),
        IMAGE,
    ),
    "cifar_option_b": (
        "cifar_resnet",
        functools.partial(resnet, head="linear", small=True, shortcut="shortcut"),
        IMAGE,
    ),
    "hara_option_a": ("hara_resnet", functools.partial(resnet, shortcut="behind"), CLIP),
    "hara_option_b": ("hara_resnet", functools.partial(resnet, bottleneck=True), CLIP),
    "r3d": ("torchvision_video", video, CLIP),
    "mc3": ("torchvision_video", functools.partial(video, kind="mc3"), CLIP),
    "r2plus1d": ("torchvision_r2plus1d", functools.partial(video, kind="r2plus1d"), CLIP),
    "tsm": ("tsm", published.tsm, CLIP),
    "slowfast": ("slowfast", published.slowfast, (2, 3, 8, 24, 16)),
    "pytorchvideo_slowfast": (
        "pytorchvideo_slowfast",
        functools.partial(published.slowfast, names=published.PYTORCHVIDEO),
        (2, 3, 8, 24, 16),
    ),
    "deeplab": ("torchvision_deeplab", published.deeplab, (2, 3, 41, 33)),
    "vit": ("torchvision_vit", published.vit, (2, 3, 16, 16)),
    "vit_of_two_heads": (
        "torchvision_vit",
        lambda net, x, _, classes: published.vit(net, x, 128, classes, depth=1, heads=2),
        (2, 3, 8, 8),
    ),
    "vit_of_before": (
        "torchvision_vit",
        functools.partial(published.vit, mlp=("linear_1", "linear_2")),
        (2, 3, 16, 16),
    ),
}


def drawn(name: str, pixels: np.ndarray | None = None):
    """The tensors of a network, and its logits of pixels that are normalised."""
    _, network, shape = NETWORKS[name]
    net = published.Net()
    logits = network(net, np.zeros(shape) if pixels is None else pixels, 8, CLASSES)
    return net.tensors, logits


@functools.cache
def _drawn_once(name: str):
    return drawn(name)[0]


def tensors_of(name: str) -> dict[str, np.ndarray]:
    """The tensors of a network, in a dictionary of its own."""
    return dict(_drawn_once(name))


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
# Hara's files of 2018 take pixels from 0 to 255 less ActivityNet's mean, those of 2020 others.
HARA_2018 = ((114.7748 / 255, 107.7354 / 255, 99.4750 / 255), (1 / 255,) * 3)
HARA_2020 = ((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737))
SLOWFAST = ((0.45,), (0.225,))
OF_IMAGENET = ("resnet18", "resnet50", "cifar_option_a", "tsm", "deeplab")
PIXELS = {
    **dict.fromkeys((*OF_IMAGENET, "vit", "vit_of_two_heads", "vit_of_before"), IMAGENET),
    "cifar_option_b": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    **dict.fromkeys(("hara_option_a", "hara_option_b"), HARA_2020),
    **dict.fromkeys(("r3d", "mc3", "r2plus1d"), KINETICS),
    **dict.fromkeys(("slowfast", "pytorchvideo_slowfast"), SLOWFAST),
}


def pixels_of(name: str, tensors: dict[str, np.ndarray]):
    """The mean and the standard deviation that the network of these tensors expects."""
    model = LAYOUTS[NETWORKS[name][0]].make(tensors)
    return model.mean, model.std


@pytest.mark.parametrize("name", NETWORKS)
def test_pixels_are_normalised_as_the_published_network_was_trained(name):
    np.testing.assert_allclose(pixels_of(name, tensors_of(name)), PIXELS[name], rtol=1e-6)


@pytest.mark.parametrize("name", ["hara_option_a", "hara_option_b"])
@pytest.mark.parametrize("saved_again", [False, True])
def test_haras_files_of_2018_have_counted_no_batches(name, saved_again):
    """Theirs have no counters, which a later PyTorch adds as zeros when it saves them again."""
    tensors = tensors_of(name)
    for key in [key for key in tensors if key.endswith("num_batches_tracked")]:
        tensors[key] = np.array(0)
        if not saved_again:
            del tensors[key]
    np.testing.assert_allclose(pixels_of(name, tensors), HARA_2018, rtol=1e-6)


AT_NIGHT = ("r2plus1d", "pytorchvideo_slowfast", "deeplab", "vit", "vit_of_before")


@pytest.mark.parametrize("name", [at_night(n) if n in AT_NIGHT else n for n in NETWORKS])
def test_logits_are_those_of_the_published_network(name, tmp_path):
    layout, _, shape = NETWORKS[name]
    tensors = tensors_of(name)
    state = {f"module.{key}": value for key, value in tensors.items()}
    found = read(write_zip(tmp_path / "weights.pt", state))
    assert found.layout == layout
    assert found.left_out == tuple(key for key in tensors if "aux" in key)
    assert found.model.num_classes == CLASSES
    pixels = np.random.default_rng(1).random((*shape[:1], *shape[2:], 3), np.float32)
    normal = (pixels - np.array(found.model.mean)) / np.array(found.model.std)
    _, expected = drawn(name, np.moveaxis(normal, -1, 1))
    logits = jax.jit(found.model.apply)(found.variables, pixels)
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * scale
    np.testing.assert_allclose(logits / scale, expected / scale, atol=2e-5)


EIGHTEEN, FIFTY = (2, 2, 2, 2), (3, 4, 6, 3)
# Network, width, classes and input.
FULL = {
    "resnet18": (functools.partial(resnet, stages=EIGHTEEN), 64, 400, (2, 3, 112, 112)),
    "resnet50": (
        functools.partial(resnet, stages=FIFTY, bottleneck=True),
        *(64, 400, (2, 3, 64, 64)),
    ),
    "cifar_resnet20": (
        functools.partial(resnet, stages=(3, 3, 3), head="linear", small=True, shortcut="around"),
        *(16, 10, (2, 3, 32, 32)),
    ),
    "r3d": (functools.partial(video, stages=EIGHTEEN), 64, 400, (2, 3, 8, 56, 56)),
    "r2plus1d": (
        functools.partial(video, stages=EIGHTEEN, kind="r2plus1d"),
        *(64, 400, (2, 3, 8, 56, 56)),
    ),
    "hara_option_a": (
        functools.partial(resnet, stages=EIGHTEEN, shortcut="behind"),
        *(64, 400, (2, 3, 8, 56, 56)),
    ),
    "tsm": (functools.partial(published.tsm, stages=FIFTY), 64, 400, (2, 3, 8, 64, 64)),
    "slowfast": (
        functools.partial(published.slowfast, stages=FIFTY),
        *(64, 400, (2, 3, 16, 56, 56)),
    ),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", FULL)
def test_logits_at_full_width(name, tmp_path):
    network, width, classes, shape = FULL[name]
    net = published.Net()
    network(net, np.zeros((1, *shape[1:])), width, classes)
    found = read(write_zip(tmp_path / "weights.pt", net.tensors))
    pixels = np.random.default_rng(1).random((*shape[:1], *shape[2:], 3), np.float32)
    normal = (pixels - np.array(found.model.mean)) / np.array(found.model.std)
    expected = network(net, np.moveaxis(normal, -1, 1), width, classes)
    logits = jax.jit(found.model.apply)(found.variables, pixels)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=2e-5)


def refusal(tmp_path, tensors, layout=None) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        read(write_safetensors(tmp_path / "weights", tensors), layout)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_keys_that_are_unknown_missing_or_of_other_shapes_are_listed(tmp_path):
    tensors = tensors_of("resnet18")
    kernel = tensors.pop("layer1.1.conv2.weight")
    tensors["layer1.1.conv9.weight"] = kernel
    tensors["layer2.0.bn1.weight"] = np.ones(7, np.float32)
    line = refusal(tmp_path, tensors)
    assert "of this size (torchvision ResNet);" in line
    assert "unknown keys: layer1.1.conv9.weight;" in line
    assert "nothing for: params/stage1_block2/conv2/kernel;" in line
    assert "layer2.0.bn1.weight (7,) as params/stage2_block1/norm1/scale (16,)" in line


def test_a_long_list_is_cut(tmp_path):
    tensors = tensors_of("resnet18")
    more = {f"extra.{number}": np.zeros(1, np.float32) for number in range(14)}
    line = refusal(tmp_path, tensors | more)
    assert "extra.9 and 4 more" in line
    assert "extra.10" not in line


def test_a_tensor_of_the_same_size_and_another_shape_is_no_kernel(tmp_path):
    tensors = tensors_of("r3d")
    kernel = tensors["layer1.0.conv1.0.weight"]
    tensors["layer1.0.conv1.0.weight"] = kernel.reshape(8, 8, 9, 3, 1)
    assert "other shapes: layer1.0.conv1.0.weight (8, 8, 9, 3, 1)" in refusal(tmp_path, tensors)


def test_a_window_in_time_is_none_in_space(tmp_path):
    tensors = tensors_of("r2plus1d")
    name = "layer1.0.conv1.0.3.weight"
    tensors[name] = np.swapaxes(tensors[name], 2, 3).copy()
    assert f"other shapes: {name} (8, 18, 1, 3, 1)" in refusal(tmp_path, tensors)


def test_two_names_of_one_tensor_are_not_taken_in_silence(tmp_path):
    tensors = tensors_of("vit")
    other = "encoder.layers.encoder_layer_0.mlp.linear_1.bias"
    tensors[other] = np.zeros_like(tensors["encoder.layers.encoder_layer_0.mlp.0.bias"])
    assert f"unknown keys: {other}" in refusal(tmp_path, tensors)


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (None, "its names are of no known layout (a.weight, …); expected one of torchvision_resn"),
        ("hara_resnet", "it is no 3D ResNet of kenshohara: 'fc.weight' is missing"),
        ("hara", "layout: 'hara' is not accepted; did you mean hara_resnet?"),
    ],
)
def test_names_of_nothing_that_is_known(layout, said, tmp_path):
    assert said in refusal(tmp_path, {"a.weight": np.zeros((2, 2), np.float32)}, layout)


def test_a_network_of_impossible_sizes_is_refused(tmp_path):
    tensors = tensors_of("resnet18")
    tensors["fc.weight"] = np.zeros((0, 16), np.float32)
    assert "num_classes must be at least 1" in refusal(tmp_path, tensors)


def test_names_of_two_layouts_ask_which(tmp_path, monkeypatch):
    monkeypatch.setitem(LAYOUTS, "mine", LAYOUTS["torchvision_resnet"])
    assert "expected --layout torchvision_resnet or" in refusal(tmp_path, tensors_of("resnet18"))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    tensors = tensors_of("resnet18")
    tensors["bn1.bias"] = np.full_like(tensors["bn1.bias"], np.nan)
    tensors["fc.bias"] = np.full(CLASSES, 1e300)
    assert "numbers that are not finite: bn1.bias, fc.bias" in refusal(tmp_path, tensors)


def test_half_precision_becomes_float32(tmp_path):
    tensors = tensors_of("resnet18")
    half = {name: value.astype(np.float16) for name, value in tensors.items()}
    found = read(write_zip(tmp_path / "weights.pt", half))
    leaves = jax.tree.leaves(found.variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(
        found.variables["params"]["head"]["bias"], half["fc.bias"].astype(np.float32)
    )
