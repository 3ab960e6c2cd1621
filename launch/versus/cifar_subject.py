"""Small CIFAR-10 classifiers, trained here in JAX, and the same weights in PyTorch.

They are what `auto_attack.py` attacks in both libraries.
Axes: B = batch, H W = height, width, C = channels, K = classes. Images are [B, H, W, C] here and
[B, C, H, W] there, pixels in [0, 1].
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmoe.attacks import AttackSettings, cross_entropy, pgd
from jaxmoe.models import Conv, Normalize, average_pool_to
from jaxmoe.threat import ThreatModel

CLASSES, POOLED = 10, 4
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)  # of CIFAR-10's training images
LAYERS = ((16, 2), (32, 2), (32, 1))  # channels and stride: 2 MFLOPs an image
DROPOUT = 0.2
EPSILON, STEP = 8 / 255, 2 / 255
BATCH, RATE, DECAY = 64, 4e-3, 5e-4


class Subject(NamedTuple):
    """A classifier to train."""

    adversarial: bool  # PGD-AT (Madry et al. 2018)
    dropout: float  # also at test time: a model with noise
    epochs: int
    steps: int  # of training's attack


SUBJECTS = {
    "standard": Subject(False, 0.0, 20, 0),
    "pgd_at": Subject(True, 0.0, 40, 6),
    "pgd_at_dropout": Subject(True, DROPOUT, 40, 6),
}


class Images(NamedTuple):
    """The npz: float32 pixels in [0, 1] and int32 labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class SmallConvNet(nn.Module):
    """Three convolutions, a pool, a linear layer.

    Attributes:
      dropout: share of the pooled features that are dropped; needs the rng "dropout".
      dtype: of the computation.
    """

    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> logits [B, K]."""
        x = Normalize(MEAN, STD, self.dtype)(x)
        for number, (channels, stride) in enumerate(LAYERS):
            pads = ((1, 1), (1, 1))  # PyTorch's; "SAME" pads an even size on one side only
            own = {"use_bias": True, "dtype": self.dtype, "name": f"conv{number + 1}"}
            x = jax.nn.relu(Conv(channels, (3, 3), stride, pads, **own)(x))
        x = average_pool_to(x, (POOLED, POOLED)).reshape(x.shape[0], -1)
        x = nn.Dropout(self.dropout, deterministic=self.dropout == 0)(x)
        return nn.Dense(CLASSES, dtype=self.dtype, name="head")(x)


def load_images(path: pathlib.Path) -> Images:
    """The images of an npz with `x_train`, `y_train`, `x_test` and `y_test`, uint8 NHWC.

    Raises:
      ValueError: no such file, or an array that is missing.
    """
    if not path.is_file():
        raise ValueError(f"--data: {path} is no file; expected cifar10_lossless_partial.npz")
    with np.load(path) as arrays:
        missing = [name for name in Images._fields if name not in arrays]
        if missing:
            raise ValueError(f"--data: {path} lacks {', '.join(missing)}")
        found = {name: arrays[name] for name in Images._fields}
    for name, values in found.items():
        pixels = name.startswith("x")
        found[name] = values.astype(np.float32) / 255 if pixels else values.astype(np.int32)
    return Images(**found)


def noisy_apply(name: str) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """`(params, x, key) -> logits`; a classifier without dropout does not use the key."""
    model = SmallConvNet(SUBJECTS[name].dropout)
    return lambda params, x, key: model.apply({"params": params}, x, rngs={"dropout": key})


def plain_apply(dtype: Any = jnp.float32) -> Callable[[Any, jax.Array], jax.Array]:
    """`(params, x) -> logits` of any subject, without dropout."""
    return lambda params, x: SmallConvNet(dtype=dtype).apply({"params": params}, x)


def init(seed: int) -> Any:
    """Params at random."""
    return SmallConvNet().init(jax.random.key(seed), jnp.zeros((1, 32, 32, 3)))["params"]


def train_step(name: str, optimizer: optax.GradientTransformation) -> Callable:
    """The compiled `(params, state, key, x, y) -> (params, state, loss)` of a subject."""
    subject, apply = SUBJECTS[name], noisy_apply(name)
    threat = ThreatModel("linf", EPSILON)
    settings = AttackSettings(alpha=STEP / EPSILON, steps=max(subject.steps, 1))

    @jax.jit
    def step(params, state, key, x, y):
        attack_key, noise_key = jax.random.split(key)
        if subject.adversarial:
            attack = pgd(lambda p, x: apply(p, x, noise_key), threat, settings)
            x = attack(attack_key, params, x, y).x_adv

        def loss(params):
            return jnp.mean(cross_entropy(apply(params, x, noise_key), y))

        value, gradient = jax.value_and_grad(loss)(params)
        change, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, change), state, value

    return step


def train(
    name: str, images: Images, seed: int, say: Callable[[str], None], epochs: int | None = None
) -> Any:
    """Params of a subject trained on the training images, with flips and shifts."""
    epochs = epochs or SUBJECTS[name].epochs
    batches = len(images.x_train) // BATCH
    schedule = optax.cosine_onecycle_schedule(epochs * batches, RATE)
    optimizer = optax.adamw(schedule, weight_decay=DECAY)
    params = init(seed)
    state, step = optimizer.init(params), train_step(name, optimizer)
    rng, key = np.random.default_rng(seed), jax.random.key(seed + 1)
    for epoch in range(epochs):
        order, losses = rng.permutation(len(images.x_train)), []
        for batch in order[: batches * BATCH].reshape(batches, BATCH):
            key, own = jax.random.split(key)
            x = augment(rng, images.x_train[batch])
            params, state, loss = step(params, state, own, x, images.y_train[batch])
            losses.append(loss)
        say(f"{name}: epoch {epoch + 1} of {epochs}, loss {np.mean(jax.device_get(losses)):.3f}")
    return params


def trained(
    name: str, images: Images, folder: pathlib.Path, seed: int, say: Callable[[str], None]
) -> Any:
    """The params in `folder`, trained first where there are none."""
    path = folder / f"{name}_{seed}.npz"
    if not path.is_file():
        flat = {"/".join(key): leaf for key, leaf in _flatten(train(name, images, seed, say))}
        partial = path.with_suffix(".part.npz")  # a stopped command leaves no half of a file
        np.savez(partial, **flat)
        partial.rename(path)
    with np.load(path) as arrays:
        params: dict = {}
        for key in arrays:
            layer, leaf = key.split("/")
            params.setdefault(layer, {})[leaf] = jnp.asarray(arrays[key])
    return params


def clean_accuracy(name: str, params: Any, images: Images) -> float:
    """Of one look at each test image."""
    apply = jax.jit(noisy_apply(name))
    right = np.argmax(apply(params, images.x_test, jax.random.key(0)), -1) == images.y_test
    return float(np.mean(right))


def torch_twin(name: str, params: Any) -> Any:
    """The subject as a `torch.nn.Module` in evaluation mode, its dropout active all the same."""
    import torch
    from torch.nn import functional

    dtype = getattr(torch, str(params["head"]["bias"].dtype))
    dropout = SUBJECTS[name].dropout
    kernels = {layer: np.array(leaves["kernel"]) for layer, leaves in params.items()}
    biases = {layer: torch.tensor(np.array(leaves["bias"])) for layer, leaves in params.items()}
    convs = [torch.tensor(kernels[f"conv{i + 1}"]).permute(3, 2, 0, 1) for i in range(len(LAYERS))]
    convs = [kernel.contiguous() for kernel in convs]
    # Features are flattened as H, W, C here and as C, H, W there.
    head = kernels["head"].reshape(POOLED, POOLED, -1, CLASSES).transpose(2, 0, 1, 3)
    head = torch.tensor(head.reshape(-1, CLASSES))
    mean, std = (torch.tensor(v, dtype=dtype).reshape(1, 3, 1, 1) for v in (MEAN, STD))

    class Twin(torch.nn.Module):
        def forward(self, x):
            x = (x - mean) / std
            for number, (kernel, (_, stride)) in enumerate(zip(convs, LAYERS, strict=True)):
                bias = biases[f"conv{number + 1}"]
                x = functional.relu(functional.conv2d(x, kernel, bias, stride, 1))
            x = functional.avg_pool2d(x, x.shape[-1] // POOLED).flatten(1)
            if dropout and not self.quiet:
                x = functional.dropout(x, dropout, training=True)
            return x @ head + biases["head"]

    twin = Twin().eval()
    twin.quiet = False
    return twin


def twin_difference(params: Any, twin: Any, images: np.ndarray) -> float:
    """The largest difference of any logit, dropout aside."""
    import torch

    ours = jax.jit(plain_apply())(params, images)
    twin.quiet = True
    with torch.no_grad():
        theirs = twin(to_torch(images)).numpy()
    twin.quiet = False
    return float(np.max(np.abs(np.asarray(ours) - theirs)))


def to_torch(images: Any) -> Any:
    """[B, H, W, C] -> a tensor [B, C, H, W]."""
    import torch

    return torch.tensor(np.ascontiguousarray(np.moveaxis(np.asarray(images), -1, 1)))


def augment(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Flips, and shifts by up to four pixels."""
    padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    top, left = rng.integers(0, 9, (2, len(x)))
    moved = [image[t : t + 32, s : s + 32] for image, t, s in zip(padded, top, left, strict=True)]
    flip = rng.random(len(x)) < 0.5
    return np.stack([i[:, ::-1] if f else i for i, f in zip(moved, flip, strict=True)])


def _flatten(params: Any) -> list[tuple[tuple[str, str], np.ndarray]]:
    return [
        ((layer, leaf), np.asarray(values))
        for layer, leaves in params.items()
        for leaf, values in leaves.items()
    ]
