"""PGD-10 against PyTorch's bare loop, the same 3D ResNet with the same weights. torch is optional.

Axes: clips are `[B, T, H, W, C]` here and `[B, C, T, H, W]` there.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxmoe.attacks import AttackSettings, pgd
from jaxmoe.benchmarks.row import Row
from jaxmoe.benchmarks.subjects import clips, dtypes, resnet, scale
from jaxmoe.benchmarks.timing import compare
from jaxmoe.threat import ThreatModel

STEPS, EPSILON, ALPHA = 10, 8 / 255, 2 / 255
_TOLERANCE = 1e-3


def run() -> list[Row]:
    """PyTorch eager, and on a GPU also compiled, for each computation type.

    Raises:
      RuntimeError: the two models do not agree.
    """
    import torch

    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    x, y = clips(8 * scale(), 8, 64)
    with _quiet():
        return [
            row for dtype in (dtypes() if on_gpu else ("float32",)) for row in _rows(dtype, x, y)
        ]


def _rows(dtype: str, x: jax.Array, y: jax.Array) -> list[Row]:
    import torch

    on_gpu = jax.default_backend() == "gpu"
    model = resnet(dtype)
    params = model.init(jax.random.key(0), x)
    threat, settings = ThreatModel("linf", EPSILON), AttackSettings(ALPHA / EPSILON, steps=STEPS)
    attack, key = jax.jit(pgd(model.apply, threat, settings)), jax.random.key(1)
    device = torch.device("cuda" if on_gpu else "cpu")
    forward = torch_forward(params["params"], device, getattr(torch, dtype))
    theirs = torch.tensor(np.moveaxis(np.array(x), -1, 1), device=device)
    labels = torch.tensor(np.array(y), device=device, dtype=torch.long)
    if dtype == "float32":
        check_same(model.apply(params, x), forward(theirs))
    variants = {"eager": (forward, 0.7 if on_gpu else 1.5)}
    if on_gpu:
        variants["torch.compile"] = (torch.compile(forward), 1.0)
    return [
        compare(
            f"PGD-{STEPS} / PyTorch {name}, {dtype}",
            bar,
            {
                "jaxmoe": lambda: attack(key, params, x, y),
                "torch": functools.partial(torch_pgd, function, theirs, labels),
            },
            f"3D ResNet of width 32, four stages of one block, clips {x.shape}, "
            f"torch {torch.__version__} with {torch.get_num_threads()} threads",
            rounds=3,
        )
        for name, (function, bar) in variants.items()
    ]


def torch_pgd(forward: Callable, x: Any, y: Any, steps: int = STEPS) -> None:
    """The bare loop: gradient, signed step, ball, box."""
    import torch

    x_adv = (x + torch.empty_like(x).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
    for _ in range(steps):
        x_adv.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(forward(x_adv), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = x_adv.detach() + ALPHA * gradient.sign()
        x_adv = (x + (x_adv - x).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    if x.is_cuda:
        torch.cuda.synchronize()


def torch_forward(params: Any, device: Any, dtype: Any) -> Callable:
    """The ResNet as a PyTorch function with `params`, of clips and with group norm."""
    import torch
    from torch.nn import functional

    weights = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf), device=device), params)

    def conv(p, x, strides, padding):
        kernel = p["kernel"].permute(4, 3, 0, 1, 2).to(dtype)
        return functional.conv3d(x, kernel, stride=strides, padding=padding)

    def norm(p, x):
        # `models.GroupNorm`: groups of eight channels, where these are a power of two.
        groups = max(1, min(32, x.shape[1] // 8))
        return functional.group_norm(x, groups, p["scale"].to(dtype), p["bias"].to(dtype), 1e-5)

    def block(p, x, stride):
        y = functional.relu(norm(p["norm1"], conv(p["conv1"], x, stride, 1)))
        y = norm(p["norm2"], conv(p["conv2"], y, 1, 1))
        if "proj" in p:
            x = norm(p["norm_proj"], conv(p["proj"], x, stride, 0))
        return functional.relu(x + y)

    def forward(x):
        x = ((x - 0.5) / 0.5).to(dtype)
        size = weights["stem"]["kernel"].shape[0]
        stem = conv(weights["stem"], x, (1, 2, 2), size // 2)
        x = functional.relu(norm(weights["norm_stem"], stem))
        if size == 7:  # the stem called "large"
            x = functional.max_pool3d(x, 3, 2, 1)
        for name in sorted(name for name in weights if name.startswith("stage")):
            first = name.endswith("_block1") and not name.startswith("stage1_")
            x = block(weights[name], x, 2 if first else 1)
        pooled = x.float().mean(dim=(2, 3, 4))
        return pooled @ weights["head"]["kernel"] + weights["head"]["bias"]

    return forward


def torch_even_mixture(params: Any, grid: Sequence[int], device: Any, dtype: Any) -> Callable:
    """The mixture of `subjects.evenly_routed`, with a `PooledRouter`, as a PyTorch function.

    Each expert gets its share of the batch as a slice, so nothing depends on data.
    """
    import torch

    turns = jax.tree.leaves(params["experts"])[0].shape[0]
    experts = [
        torch_forward(
            jax.tree.map(lambda leaf, i=i: leaf[i], params["experts"]["params"]), device, dtype
        )
        for i in range(turns)
    ]
    head = {
        name: torch.tensor(np.array(leaf), device=device)
        for name, leaf in params["router"]["params"]["head"].items()
    }

    def forward(x):
        cells = torch.nn.functional.adaptive_avg_pool3d((x - 0.5) / 0.5, tuple(grid))
        logits = cells.permute(0, 2, 3, 4, 1).flatten(1) @ head["kernel"] + head["bias"]
        turn = torch.arange(len(x), device=device) % turns
        weights = (logits + 10 * torch.nn.functional.one_hot(turn, turns)).softmax(-1)
        outputs = torch.stack([expert(x[i::turns]) for i, expert in enumerate(experts)], 1)
        return outputs.flatten(0, 1) * weights.amax(-1, keepdim=True)

    return forward


def check_same(ours: Any, theirs: Any) -> None:
    """Raises a RuntimeError where two models' logits differ."""
    difference = float(np.abs(np.asarray(ours) - theirs.detach().cpu().numpy()).max())
    if difference > _TOLERANCE:
        raise RuntimeError(f"torch's 3D ResNet differs from ours by {difference:.3g}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of torch's compiler."""
    import logging

    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
