"""Two published architectures, with the convolutions that users write, and in PyTorch.

resnet20: the ResNet-20 for CIFAR of He et al. 2016 (https://arxiv.org/abs/1512.03385, section 4.2),
its shortcuts 1 x 1 convolutions and its batch norms as they are at test time, a scale and a shift.
resnet2b: the small network of the verification competitions (VNN-COMP 2021), without norms.

Params are one dict, `{layer: {"kernel" [K, K, C, O], "scale" [O], "bias" [O]}}`, for all.
Axes: B = batch, H W = height, width, C = channels. Images are [B, H, W, C] in [0, 1].
"""

import functools
from collections.abc import Callable
from typing import Any

import cifar_subject as subjects
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from jaxmoe.attacks import AttackSettings, cross_entropy, pgd
from jaxmoe.threat import ThreatModel

Params = dict[str, dict[str, Any]]
Layer = Callable[..., Any]  # (params of the layer, x, stride) -> y
WIDTHS_20, BLOCKS_20 = (16, 32, 64), 3
WIDTH_2B, HIDDEN_2B = 8, 100
RATE = 1e-3


def resnet20(conv: Layer, relu: Callable, params: Params, x: Any) -> Any:
    """Images or, for one library, an image, to the last features, not pooled."""
    x = relu(conv(params["stem"], x, 1))
    for stage in range(len(WIDTHS_20)):
        for block in range(BLOCKS_20):
            stride = 2 if stage and not block else 1
            x = _block(conv, relu, params, f"{stage}{block}", x, stride)
    return x


def resnet2b(conv: Layer, relu: Callable, params: Params, x: Any) -> Any:
    """Images or, for one library, an image, to the last features."""
    x = relu(conv(params["stem"], x, 2))
    for block, stride in enumerate((2, 1)):
        x = _block(conv, relu, params, f"0{block}", x, stride)
    return x


def train(
    name: str, images: subjects.Images, epochs: int, steps: int, say: Callable[[str], None]
) -> Params:
    """Params trained briefly, on clean images or on those of PGD with so many steps."""
    batches = len(images.x_train) // subjects.BATCH
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(epochs * batches, RATE))
    model = functools.partial(apply, name, "lax")
    threat = ThreatModel("linf", subjects.EPSILON)
    attack = pgd(model, threat, AttackSettings(alpha=0.6, steps=steps)) if steps else None

    @jax.jit
    def step(params, state, key, x, y):
        x = attack(key, params, x, y).x_adv if attack else x
        value, gradient = jax.value_and_grad(
            lambda params: jnp.mean(cross_entropy(model(params, x), y))
        )(params)
        change, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, change), state, value

    rng, key, params = np.random.default_rng(0), jax.random.key(0), init(name, 0)
    state = optimizer.init(params)
    for epoch in range(epochs):
        order, losses = rng.permutation(len(images.x_train)), []
        for batch in order[: batches * subjects.BATCH].reshape(batches, subjects.BATCH):
            key, own = jax.random.split(key)
            x = subjects.augment(rng, images.x_train[batch])
            params, state, loss = step(params, state, own, x, images.y_train[batch])
            losses.append(loss)
        say(f"{name}: epoch {epoch + 1} of {epochs}, loss {np.mean(jax.device_get(losses)):.3f}")
    return jax.device_get(params)


def _block(conv: Layer, relu: Callable, params: Params, name: str, x: Any, stride: int) -> Any:
    y = relu(conv(params[f"{name}a"], x, stride))
    y = conv(params[f"{name}b"], y, 1)
    return relu(y + (conv(params[f"{name}s"], x, stride) if f"{name}s" in params else x))


NETWORKS = {"resnet20": resnet20, "resnet2b": resnet2b}


def init(name: str, seed: int) -> Params:
    """Params at random (He et al. 2015); the last of a block, and of all, are small."""
    rng, params = np.random.default_rng(seed), {}

    def add(layer, taps, channels, features, scale=1.0):
        size = np.sqrt(2 / (taps * taps * channels))
        params[layer] = {
            "kernel": rng.normal(0, size, (taps, taps, channels, features)).astype(np.float32),
            "bias": np.zeros(features, np.float32),
        }
        if name == "resnet20":
            params[layer]["scale"] = np.full(features, scale, np.float32)
        else:
            params[layer]["kernel"] *= np.float32(scale)

    def add_block(layer, channels, features, stride):
        add(f"{layer}a", 3, channels, features)
        add(f"{layer}b", 3, features, features, 0.2)
        if stride != 1 or channels != features:
            add(f"{layer}s", 1, channels, features)

    def add_dense(layer, channels, features):
        add(layer, 1, channels, features)
        params[layer].pop("scale", None)
        params[layer]["kernel"] = params[layer]["kernel"][0, 0] * np.float32(0.2)

    if name == "resnet20":
        add("stem", 3, 3, WIDTHS_20[0])
        for stage, width in enumerate(WIDTHS_20):
            for block in range(BLOCKS_20):
                before = width if block else WIDTHS_20[max(stage - 1, 0)]
                add_block(f"{stage}{block}", before, width, 2 if stage and not block else 1)
        add_dense("head", WIDTHS_20[-1], subjects.CLASSES)
    else:
        add("stem", 3, 3, WIDTH_2B)
        for block, stride in enumerate((2, 1)):
            add_block(f"0{block}", WIDTH_2B * (2 - (stride == 2)), 2 * WIDTH_2B, stride)
        add_dense("hidden", 8 * 8 * 2 * WIDTH_2B, HIDDEN_2B)
        add_dense("head", HIDDEN_2B, subjects.CLASSES)
    return params


def _head(name: str, relu: Callable, params: Params, features: Any) -> Any:
    """[B, H, W, C] -> [B, K]; of both frameworks' arrays."""
    if name == "resnet20":
        features = features.mean((1, 2))
    else:
        features = features.reshape(features.shape[0], -1)
        features = relu(features @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return features @ params["head"]["kernel"] + params["head"]["bias"][None]


def _affine(layer: dict[str, Any], y: Any) -> Any:
    """Images [B, H, W, C], scaled and shifted."""
    scale, bias = (layer[key][None, None, None] if key in layer else 1 for key in ("scale", "bias"))
    return y * scale + bias


def _lax(layer, x, stride):
    pad = layer["kernel"].shape[0] // 2
    numbers = ("NHWC", "HWIO", "NHWC")
    pads = ((pad, pad), (pad, pad))
    y = lax.conv_general_dilated(
        x, layer["kernel"], (stride, stride), pads, dimension_numbers=numbers
    )
    return _affine(layer, y)


def _linen(layer, x, stride):
    taps, _, _, features = layer["kernel"].shape
    module = nn.Conv(features, (taps, taps), stride, taps // 2, use_bias=False)
    return _affine(layer, module.apply({"params": {"kernel": layer["kernel"]}}, x))


def _nnx(layer, x, stride):
    taps, _, channels, features = layer["kernel"].shape
    module = nnx.Conv(
        channels,
        features,
        (taps, taps),
        stride,
        padding=taps // 2,
        use_bias=False,
        rngs=nnx.Rngs(0),
    )
    module.kernel = nnx.Param(layer["kernel"])
    return _affine(layer, module(x))


def _equinox(layer, x, stride):
    """One image [C, H, W], as this library has it; `vmap` makes the batch."""
    taps, _, channels, features = layer["kernel"].shape
    make = functools.partial(eqx.nn.Conv2d, use_bias=False, key=jax.random.key(0))
    module = make(channels, features, taps, stride, taps // 2)
    kernel = jnp.transpose(layer["kernel"], (3, 2, 0, 1))
    y = eqx.tree_at(lambda module: module.weight, module, kernel)(x)
    return jnp.moveaxis(_affine(layer, jnp.moveaxis(y, 0, -1)[None])[0], -1, 0)


LIBRARIES = {"lax": _lax, "linen": _linen, "nnx": _nnx, "equinox": _equinox}


def apply(name: str, library: str, params: Params, x: jax.Array) -> jax.Array:
    """Logits of images, with the convolutions of a library."""
    run = functools.partial(NETWORKS[name], LIBRARIES[library], jax.nn.relu, params)
    x = _normalized(x)
    if library == "equinox":
        features = jnp.moveaxis(jax.vmap(run)(jnp.moveaxis(x, -1, 1)), 1, -1)
    else:
        features = run(x)
    return _head(name, jax.nn.relu, params, features)


def _normalized(x: jax.Array) -> jax.Array:
    mean, std = (jnp.asarray(v, x.dtype)[None, None, None] for v in (subjects.MEAN, subjects.STD))
    return (x - mean) / std


def torch_twin(name: str, params: Params) -> Any:
    """The same as a `torch.nn.Module`."""
    import torch
    from torch.nn import functional

    layers = {
        layer: {key: torch.tensor(np.array(value)) for key, value in leaves.items()}
        for layer, leaves in params.items()
    }
    for leaves in layers.values():
        if leaves["kernel"].ndim == 4:
            leaves["kernel"] = leaves["kernel"].permute(3, 2, 0, 1).contiguous()
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (subjects.MEAN, subjects.STD))

    def conv(layer, x, stride):
        kernel, bias, pad = layer["kernel"], layer["bias"], layer["kernel"].shape[-1] // 2
        if "scale" not in layer:
            return functional.conv2d(x, kernel, bias, stride, pad)
        y, zeros, ones = functional.conv2d(x, kernel, None, stride, pad), 0 * bias, 0 * bias + 1
        return functional.batch_norm(y, zeros, ones, layer["scale"], bias, eps=0.0)

    class Twin(torch.nn.Module):
        def forward(self, x):
            features = NETWORKS[name](conv, functional.relu, layers, (x - mean) / std)
            return _head(name, functional.relu, layers, features.permute(0, 2, 3, 1))

    return Twin().eval()
