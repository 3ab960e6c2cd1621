"""Lipschitz constants that hold everywhere: products of induced norms, exact for affine modules.

Of a module with logits z_1 … z_K what certificates need is `[K, K]`: entry (a, b) bounds
`|(z_a − z_b)(x) − (z_a − z_b)(x')| / ‖x − x'‖`. Sampled quotients (`evaluation.lipschitz`) are
diagnostics and bound nothing.

Computed in float64 by NumPy. Axes: K = outputs of a module, I, O = features in and out.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxmoe.choices import Norm
from jaxmoe.evaluation.diagnostics.full_precision import at_full_precision, check_dtypes
from jaxmoe.models import ConvRouter, FrozenBatchNorm, GroupNorm, LinearRouter, PooledRouter, ResNet

Differences = Float[np.ndarray, "K K"]


def logit_difference_bounds(
    module: nn.Module, params: Any, shape: tuple[int, ...], norm: Norm
) -> Differences:
    """The `[K, K]` constants of a module's logit differences, in pixels of `norm`.

    Args:
      module: a router, or a ResNet expert. Linear routers and pooled ones without a hidden layer
        are affine, and their constants exact. Group norms divide by a deviation that may be as
        small as their ε: with them a bound holds, and is so large that it certifies nothing.
      params: of this module alone, without an axis of experts.
      shape: of one input, [T, H, W, C] or [H, W, C].
      norm: of the input, "linf" or "l2".

    Raises:
      ValueError: a module without a rule here, such as a vision transformer, whose attention has no
        constant at all; params or a computation in half precision.
    """
    check_dtypes("params", params)
    check_dtypes("dtype", jnp.zeros((), getattr(module, "dtype", jnp.float32)))
    if isinstance(module, LinearRouter) or (isinstance(module, PooledRouter) and not module.hidden):
        return affine_differences(functools.partial(module.apply, params), shape, norm)
    rules: dict[type, Callable] = {
        PooledRouter: _pooled_router,
        ConvRouter: _conv_router,
        ResNet: _resnet,
    }
    if type(module) not in rules:
        raise ValueError(
            f"certificate: {type(module).__name__} has no Lipschitz bound; expected one of "
            f"{', '.join(rule.__name__ for rule in (LinearRouter, *rules))} (--method smoothing "
            "takes any)"
        )
    leaves = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    constant = rules[type(module)](module, leaves, shape, norm)
    return constant * _row_differences(leaves["params"]["head"]["kernel"].T, norm)


def affine_differences(
    apply: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], norm: Norm
) -> Differences:
    """The exact constants of an affine `apply(x [1, …]) -> [1, K]`: its Jacobian is its weights."""
    jacobian = at_full_precision(jax.jacrev(lambda x: apply(x[None])[0]))(jnp.zeros(shape))
    return _row_differences(np.asarray(jacobian, np.float64).reshape(jacobian.shape[0], -1), norm)


def dense_bound(kernel: Float[np.ndarray, "I O"], norm: Norm) -> float:
    """The induced norm of `x ↦ x @ kernel`."""
    kernel = np.asarray(kernel, np.float64)
    if norm == "linf":
        return float(np.max(np.sum(np.abs(kernel), axis=0)))
    return float(np.linalg.norm(kernel, 2))


def conv_bound(kernel: Float[np.ndarray, "*window I O"], norm: Norm) -> float:
    """At least the induced norm of a convolution, whatever its strides and padding.

    ℓ∞: the largest sum of magnitudes that an output sees. ℓ2: the smaller of √(‖·‖₁ ‖·‖∞) and the
    sum over the window of the spectral norms of its matrices [I, O].
    """
    kernel = np.asarray(kernel, np.float64)
    taps = np.abs(kernel).reshape(-1, *kernel.shape[-2:])
    largest = float(np.max(np.sum(taps, axis=(0, 1))))
    if norm == "linf":
        return largest
    column = float(np.max(np.sum(taps, axis=(0, 2))))
    matrices = kernel.reshape(-1, *kernel.shape[-2:])
    spectral = float(sum(np.linalg.norm(matrix, 2) for matrix in matrices))
    return min(math.sqrt(largest * column), spectral)


def group_norm_bound(params: Any, group: int, epsilon: float, norm: Norm) -> float:
    """Bounds `scale · (x − mean) / √(variance + ε) + bias` over groups of `group` numbers.

    The Jacobian of a group is (I − 11ᵀ/n − x̂x̂ᵀ/n) / σ with σ ≥ √ε: of norm 1/σ in ℓ2, at most
    (2 + √n) / σ in ℓ∞, since |x̂_i| ≤ √n and their mean is at most 1.
    """
    inner = 1.0 if norm == "l2" else 2.0 + math.sqrt(group)
    return float(np.max(np.abs(params["scale"]))) * inner / math.sqrt(epsilon)


def _row_differences(rows: Float[np.ndarray, "K I"], norm: Norm) -> Differences:
    """Dual norms of all differences of rows: ‖·‖₁ against ℓ∞ inputs, ‖·‖₂ against ℓ2."""
    order = 1 if norm == "linf" else 2
    return np.stack([np.linalg.norm(row - rows, order, axis=-1) for row in rows])


def _normalize(module: nn.Module) -> float:
    return 1.0 / min(float(std) for std in module.std)


def _mean_bound(positions: int, norm: Norm) -> float:
    """Bounds the mean over positions."""
    return 1.0 if norm == "linf" else 1.0 / math.sqrt(positions)


def _pooled_router(module: PooledRouter, params: Any, shape: tuple[int, ...], norm: Norm) -> float:
    rank = len(shape) - 1
    grid = tuple(module.grid)[-rank:]
    # A cell averages, and where cells overlap or repeat a position is in several of them.
    shared = math.prod(
        max(sum(i * n // g <= p < -(-(i + 1) * n // g) for i in range(g)) for p in range(n))
        for n, g in zip(shape, grid, strict=False)
    )
    pool = 1.0 if norm == "linf" else math.sqrt(shared)
    hidden = dense_bound(params["params"]["hidden_layer"]["kernel"], norm)
    return _normalize(module) * pool * hidden


def _conv_router(module: ConvRouter, params: Any, shape: tuple[int, ...], norm: Norm) -> float:
    rank = len(shape) - 1
    sizes, constant, weights = list(shape[:-1]), _normalize(module), params["params"]
    for layer in (1, 2, 3):
        strides = (2, 4, 4)[3 - rank :] if layer == 1 else (2,) * rank
        sizes = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
        kernel = weights[f"conv{layer}"]["kernel"]
        constant *= conv_bound(kernel, norm)
        group = math.prod(sizes) * kernel.shape[-1]
        constant *= group_norm_bound(weights[f"norm{layer}"], group, GroupNorm.epsilon, norm)
    return constant * _mean_bound(math.prod(sizes), norm)


def _resnet(module: ResNet, params: Any, shape: tuple[int, ...], norm: Norm) -> float:
    rank, weights = len(shape) - 1, params["params"]
    statistics = params.get("batch_stats", {})
    sizes = list(shape[:-1])

    def halve(strides):
        sizes[:] = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]

    def norm_bound(name, *path):
        scale, stats = weights, statistics
        for part in (*path, name):
            scale, stats = scale[part], stats.get(part, {})
        if module.norm == "frozen_batch":
            factor = np.abs(scale["scale"]) / np.sqrt(stats["var"] + FrozenBatchNorm.epsilon)
            return float(np.max(factor))
        channels = len(scale["scale"])
        groups = GroupNorm().count_groups(channels)
        return group_norm_bound(
            scale, math.prod(sizes) * channels // groups, GroupNorm.epsilon, norm
        )

    halve(tuple(module.stem_strides)[3 - rank :])
    constant = _normalize(module) * conv_bound(weights["stem"]["kernel"], norm)
    constant *= norm_bound("norm_stem")
    if module.stem == "large":
        halve((2,) * rank)
        # A window of 3 with stride 2: a position is in at most two along an axis.
        constant *= 1.0 if norm == "linf" else math.sqrt(2**rank)
    for name in sorted(part for part in weights if part.startswith("stage")):
        block = weights[name]
        stride = 2 if name.endswith("_block1") and not name.startswith("stage1") else 1
        halve((stride,) * rank)
        branch = 1.0
        for i in (1, 2):
            branch *= conv_bound(block[f"conv{i}"]["kernel"], norm)
            branch *= norm_bound(f"norm{i}", name)
        shortcut = 1.0
        if "proj" in block:
            shortcut = conv_bound(block["proj"]["kernel"], norm) * norm_bound("norm_proj", name)
        constant *= shortcut + branch
    return constant * _mean_bound(math.prod(sizes), norm)
