"""FGSM, PGD and MI-FGSM of three libraries on one smooth network; see `libraries.py`.

Axes: B = batch, H W = height, width, C = channels. [B, H, W, C] here, [B, C, H, W] in PyTorch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmoe.attacks import (
    AttackSettings,
    constant_step,
    cross_entropy,
    fgsm,
    mi_fgsm,
    perturb,
    steepest_step,
)
from jaxmoe.models import conv
from jaxmoe.threat import ThreatModel

STEPS, DECAY = 10, 1.0
THREATS = {"linf": (8 / 255, 2 / 255), "l2": (0.5, 0.125)}  # ε and the length of a step
SIZE, CHANNELS, CLASSES = 16, 16, 10
SIGN_MOMENTUM = "momentum of signs"  # foolbox's MI-FGSM, also made of our pieces


def our_attacks(weights: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Results of ours, by attack."""

    def run(norm: str, step: optax.GradientTransformation):
        """Like `pgd`, which starts at random, from the clean images."""

        def attack(x):
            def loss(x_adv):
                return cross_entropy(smooth_network(weights, x_adv), y)

            threat = ThreatModel(norm, THREATS[norm][0])
            key = jax.random.key(0)
            return perturb(key, x, loss, threat, step, steps=STEPS, random_start=False)

        return jax.jit(attack)(x)

    def named(build):
        epsilon, alpha = THREATS["linf"]
        settings = AttackSettings(alpha=alpha / epsilon, steps=STEPS, decay=DECAY)
        attack = build(smooth_network, ThreatModel("linf", epsilon), settings)
        return jax.jit(attack)(jax.random.key(0), weights, x, y)

    steps = {
        norm: constant_step(ThreatModel(norm, epsilon), AttackSettings(alpha=alpha / epsilon))
        for norm, (epsilon, alpha) in THREATS.items()
    }
    signs = optax.chain(steepest_step("linf", 1.0), optax.trace(DECAY), steps["linf"])
    return {
        "fgsm": named(fgsm),
        "pgd-linf": run("linf", steps["linf"]),
        "pgd-l2": run("l2", steps["l2"]),
        "mi-fgsm": named(mi_fgsm),
        SIGN_MOMENTUM: run("linf", signs),
    }


def torchattacks_attacks(weights: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Callable]:
    """Theirs, by attack."""
    import torchattacks

    model, (linf, short), (l2, step) = module(torch_network(weights)), *THREATS.values()
    attacks = {
        "fgsm": torchattacks.FGSM(model, eps=linf),
        "pgd-linf": torchattacks.PGD(model, linf, short, STEPS, random_start=False),
        "pgd-l2": torchattacks.PGDL2(model, l2, step, STEPS, random_start=False),
        "mi-fgsm": torchattacks.MIFGSM(model, linf, short, STEPS, DECAY),
    }
    images, labels = to_torch(x), to_labels(y)
    return {name: functools.partial(attack, images, labels) for name, attack in attacks.items()}


def foolbox_attacks(model: Any, x: Any, y: Any) -> dict[str, Callable]:
    """Theirs, by attack; `run` is an attack without the look at its result that follows."""
    import foolbox
    from foolbox import attacks
    from foolbox.attacks.mi_fgsm import LinfMomentumIterativeFastGradientMethod

    (linf, short), (l2, step) = THREATS.values()
    own = {"steps": STEPS, "random_start": False}
    found = {
        "fgsm": (attacks.LinfFastGradientAttack(random_start=False), linf),
        # Step sizes are shares of ε unless they are absolute.
        "pgd-linf": (attacks.LinfPGD(abs_stepsize=short, **own), linf),
        "pgd-l2": (attacks.L2PGD(abs_stepsize=step, **own), l2),
        SIGN_MOMENTUM: (
            LinfMomentumIterativeFastGradientMethod(momentum=DECAY, abs_stepsize=short, **own),
            linf,
        ),
    }
    wrong = foolbox.criteria.Misclassification(y)
    return {
        name: functools.partial(attack.run, model, x, wrong, epsilon=epsilon)
        for name, (attack, epsilon) in found.items()
    }


def smooth_weights() -> dict[str, np.ndarray]:
    """Fixed random weights of `smooth_network`."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        fan_in = np.prod(shape[:-1])
        return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)

    half = CHANNELS * (SIZE // 2) ** 2
    return {
        "first": draw(3, 3, 3, CHANNELS) * 2,
        "second": draw(3, 3, CHANNELS, CHANNELS) * 2,
        "head": draw(half, CLASSES) * 4,
    }


def smooth_network(weights: Any, x: Any) -> jax.Array:
    """Two convolutions with tanh and a linear layer: no gradient jumps."""
    weights = jax.tree.map(jnp.asarray, weights)
    pads = ((1, 1), (1, 1))
    x = jnp.tanh(conv(jnp.asarray(x) * 2 - 1, weights["first"], strides=1, padding=pads))
    x = jnp.tanh(conv(x, weights["second"], strides=2, padding=pads))
    return x.reshape(x.shape[0], -1) @ weights["head"]


def torch_network(weights: Any) -> Callable:
    """The same in PyTorch."""
    import torch

    kernels = [
        torch.tensor(weights[n]).permute(3, 2, 0, 1).contiguous() for n in ("first", "second")
    ]
    head = torch.tensor(weights["head"])

    def forward(x):
        x = torch.tanh(torch.nn.functional.conv2d(x * 2 - 1, kernels[0], padding=1))
        x = torch.tanh(torch.nn.functional.conv2d(x, kernels[1], stride=2, padding=1))
        return x.permute(0, 2, 3, 1).flatten(1) @ head  # flattened as H, W, C

    return forward


def torch_model(weights: Any) -> Any:
    """foolbox's view of the network in PyTorch."""
    import foolbox

    return foolbox.PyTorchModel(module(torch_network(weights)), bounds=(0, 1), device="cpu")


def jax_model(weights: Any) -> Any:
    """foolbox's view of the network in JAX."""
    import foolbox

    return foolbox.JAXModel(jax.jit(functools.partial(smooth_network, weights)), bounds=(0, 1))


def module(forward: Callable) -> Any:
    """A function as the `torch.nn.Module` that both libraries ask for."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.device_marker = torch.nn.Parameter(torch.zeros(()), requires_grad=False)

        def forward(self, x):
            return forward(x)

    return Module().eval()


def to_torch(x: Any) -> Any:
    """An array, channels last, as a tensor, channels second."""
    import torch

    return torch.tensor(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def to_labels(y: Any) -> Any:
    """Labels as PyTorch wants them."""
    import torch

    return torch.tensor(np.asarray(y)).long()


def to_numpy(x: Any) -> np.ndarray:
    """[B, H, W, C] of a tensor or of an array."""
    return np.moveaxis(x.numpy(), 1, -1) if hasattr(x, "permute") else np.asarray(x)
