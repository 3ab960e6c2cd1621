"""The losses of APGD-CE from one start, iterate by iterate, here and in the authors' code.

A step takes signs, so that a gradient's rounding can turn a pixel by two steps: in float32 a few
images go their own way, in float64 all stay together if the algorithms are the same.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import cifar_subject as subjects
import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks.auto_pgd import maximize
from jaxmoe.attacks.objectives import cross_entropy, is_right
from jaxmoe.threat import ThreatModel, example_keys

OFFICIAL_NORMS = {"linf": "Linf", "l2": "L2"}
EARLY = 20  # steps
NEAR = 1e-3


def curves(
    name: str, params: Any, threat: ThreatModel, x: np.ndarray, y: np.ndarray, steps: int, seed: int
) -> dict[str, Any]:
    """Deviations of the subject `name` in both precisions.

    Args:
      name: of a subject without noise.
      params: of the subject.
      threat: norm and ε.
      x: images [N, H, W, C].
      y: labels [N].
      steps: of the attack.
      seed: of the start.
    """
    found = {}
    for dtype in ("float32", "float64"):
        with _precision(dtype):
            own = _cast(params, dtype)
            images = jnp.asarray(x, dtype)
            keys = example_keys(jax.random.key(seed), np.arange(len(x)))
            start = np.array(jax.jit(threat.surface_start)(keys, images))
            ours = our_losses(own, threat, keys, images, y, steps)
            theirs = official_losses(name, own, threat, start, images, y, steps)
        found[dtype] = deviations(ours, theirs)
    return found


def our_losses(params, threat, keys, x, y, steps) -> np.ndarray:
    """[steps + 1, N]; `maximize` starts at `threat.surface_start(keys, x)`."""
    apply = subjects.plain_apply(x.dtype)

    def look(x_adv):
        logits = apply(params, x_adv)
        return cross_entropy(logits, y), is_right(logits, y)

    attack = jax.jit(lambda keys, x: maximize(keys, x, look, threat, steps)[0].loss_trace)
    return np.asarray(attack(keys, x), np.float64)


def official_losses(name, params, threat, start, x, y, steps) -> np.ndarray:
    """[steps + 1, N]; their code calls the model once an iterate, which notes its logits."""
    import torch
    from autoattack.autopgd_base import APGDAttack

    twin, labels = subjects.torch_twin(name, params), torch.tensor(y).long()
    looks = []

    def noting(images):
        logits = twin(images)
        looks.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none").detach())
        return logits

    norm = OFFICIAL_NORMS[threat.norm]
    attack = APGDAttack(noting, steps, norm, eps=threat.epsilon, device="cpu")
    images = subjects.to_torch(x)
    attack.init_hyperparam(images)
    attack.attack_single_run(images, labels, x_init=subjects.to_torch(start))
    return torch.stack(looks).double().numpy()


def deviations(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """How far two sets of losses [looks, N] are apart, relative to the second."""
    apart = np.abs(ours - theirs) / np.maximum(theirs, np.finfo(np.float32).tiny)
    early = apart[: EARLY + 1]
    means = np.abs(ours.mean(1) - theirs.mean(1)) / theirs.mean(1)
    return {
        "mean": float(means[: EARLY + 1].max()),
        "image": float(early.max()),
        "median": float(np.median(early.max(0))),
        "within": float(np.mean(early.max(0) <= NEAR)),
        "mean_all_steps": float(means.max()),
        "image_all_steps": float(apart.max()),
        "mean_ours": ours.mean(1).tolist(),
        "mean_official": theirs.mean(1).tolist(),
    }


def _cast(params: Any, dtype: str) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), dtype), params)


@contextlib.contextmanager
def _precision(dtype: str) -> Iterator[None]:
    """Both frameworks in `dtype`; the authors' code makes tensors of PyTorch's default."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with jax.enable_x64(dtype == "float64"):
            yield
    finally:
        torch.set_default_dtype(before)
