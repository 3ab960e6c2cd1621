"""Networks of PyTorch and ours with their weights: whether the logits are the same.

python launch/versus/imported_weights.py --output FILE.json [--only NAME …]

Each network has random weights, running statistics and norms included, at its full width. Its
state dict is saved as a user's training script would and read with `jaxmoe.models.weights`. Both
see the same pixels, float32. Needs torch and torchvision, and pytorchvideo for SlowFast.

Axes: B = batch, T = time, H W = height, width, C = channels. [B, C, T, H, W] in PyTorch.
"""

import argparse
import importlib.util
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmoe.files import write_json
from jaxmoe.models import weights

LIBRARIES = ("torch", "torchvision", "pytorchvideo")
NAMES = (
    *("resnet18", "resnet34", "resnet50", "vit_b_16", "deeplabv3_resnet50", "cifar_resnet20"),
    *("r3d_18", "mc3_18", "r2plus1d_18", "hara_resnet18_A", "hara_resnet18_B", "hara_resnet50_B"),
    *("tsm_resnet50", "slowfast_r50"),
)
BAR = 1e-4
IMAGE, CLIP = (224, 224, 3), (8, 112, 112, 3)


class Case(NamedTuple):
    """A network of PyTorch, and what it is given."""

    make: Callable[[], Any]
    shape: tuple[int, ...]  # [T, H, W, C] or [H, W, C]
    wrap: Callable[[Any], Any] = dict  # what is saved of its state dict
    views: Callable[[Any], Any] = lambda x: x  # what the network takes of [B, C, …]


class Compared(NamedTuple):
    """How far the logits of both are apart."""

    network: str
    layout: str
    params: int
    input: tuple[int, ...]
    difference: float  # the largest of a logit
    logit: float  # the largest
    between: float  # the largest difference of a logit of two inputs

    @property
    def agrees(self) -> bool:
        """Whether they are the same; never where a number is none."""
        return self.difference <= BAR


def main() -> None:
    """Prints and writes what was asked for."""
    options = parse(sys.argv[1:])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            rows.append(compare(name, cases()[name], pathlib.Path(folder) / "weights.pt"))
            print(table(rows[-1:], titled=len(rows) == 1), flush=True)
    write_json(options.output, [row._asdict() for row in rows])
    if far := [row.network for row in rows if not row.agrees]:
        sys.exit(f"apart by more than {BAR:g}: {', '.join(far)}")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.json")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    options = parser.parse_args(arguments)
    needed = LIBRARIES if "slowfast_r50" in options.only else LIBRARIES[:2]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        sys.exit(f"not installed: {', '.join(missing)}; python -m pip install {names}")
    if not options.output.absolute().parent.is_dir():
        parser.error(f"--output: no such folder: {options.output.parent}; make it first")
    return options


def cases() -> dict[str, Case]:
    """All networks by name."""
    import torch_networks
    import torchvision.models as images
    from torchvision.models import segmentation, video

    def hara(sizes, **fields):
        def make():
            return torch_networks.ResNet(sizes, 64, 400, rank=3, head="fc", **fields)

        return Case(make, CLIP, parallel)

    def parallel(state):  # as `DataParallel` and a training script save it
        return {"epoch": 7, "state_dict": {f"module.{n}": t for n, t in state.items()}}

    basic, deep = (2, 2, 2, 2), (3, 4, 6, 3)
    cifar = {"rank": 2, "shortcut": "around", "head": "linear"}
    return {
        **{name: Case(getattr(images, name), IMAGE) for name in ("resnet18", "resnet34")},
        **{name: Case(getattr(images, name), IMAGE) for name in ("resnet50", "vit_b_16")},
        "deeplabv3_resnet50": Case(
            lambda: segmentation.deeplabv3_resnet50(
                weights=None, weights_backbone=None, aux_loss=True
            ),
            (129, 161, 3),
        ),
        "cifar_resnet20": Case(
            lambda: torch_networks.ResNet((3, 3, 3), 16, 10, **cifar), (32, 32, 3), parallel
        ),
        **{name: Case(getattr(video, name), CLIP) for name in ("r3d_18", "mc3_18", "r2plus1d_18")},
        "hara_resnet18_A": hara(basic, shortcut="behind"),
        "hara_resnet18_B": hara(basic, shortcut="projection"),
        "hara_resnet50_B": hara(deep, shortcut="projection", bottleneck=True),
        "tsm_resnet50": Case(lambda: torch_networks.TSM(400, 8), CLIP, parallel),
        "slowfast_r50": Case(_slowfast, (32, 112, 112, 3), views=_pathways),
    }


def _slowfast():
    from pytorchvideo.models.slowfast import create_slowfast

    # The pooling of the end is over all of the clip.
    return create_slowfast(head_pool_kernel_sizes=((8, 4, 4), (32, 4, 4)))


def _pathways(x):
    return [x[:, :, ::4], x]


def compare(name: str, case: Case, path: pathlib.Path) -> Compared:
    """The row of one network: saved, read again, and both run on two inputs."""
    import torch

    torch.manual_seed(0)
    twin = case.make().eval()
    pixels = np.random.default_rng(0).random((2, *case.shape), np.float32)
    pixels[1] = 0.2 * pixels[1] + 0.8 * np.linspace(0, 1, case.shape[-2])[:, None]  # brighter
    with torch.no_grad():
        _randomise(twin, case.views(_as_theirs(pixels, 0.45, 0.225)))
        torch.save(case.wrap(twin.state_dict()), path)
        found = weights.read(path)
        model = found.model
        theirs = _logits(twin(case.views(_as_theirs(pixels, model.mean, model.std))))
    ours = np.asarray(jax.jit(model.apply)(found.variables, pixels))
    params = sum(tensor.numel() for tensor in twin.parameters())
    apart = float(np.abs(ours - theirs).max())
    between = float(np.abs(theirs[0] - theirs[1]).max())
    largest = float(np.abs(theirs).max())
    return Compared(name, found.layout, params, case.shape, apart, largest, between)


def _as_theirs(pixels: np.ndarray, mean: Any, std: Any) -> Any:
    """Pixels `[B, …, C]` as `[B, C, …]`, normalised in float64 before they are rounded."""
    import torch

    normal = (pixels.astype(np.float64) - np.array(mean)) / np.array(std)
    return torch.tensor(np.moveaxis(normal.astype(np.float32), -1, 1))


def _randomise(twin: Any, x: Any) -> None:
    """Draws what starts as zeros and ones, and lets norms see `x`, as if it had been trained.

    Nothing that is mixed up goes unseen, and logits depend on what comes in.
    """
    import torch

    for name, tensor in twin.state_dict().items():
        if tensor.is_floating_point() and "running" not in name:
            if name.endswith("bias"):
                tensor.copy_(torch.randn_like(tensor) / 10)
            elif tensor.ndim == 1:
                tensor.copy_(torch.rand_like(tensor) + 0.5)
            elif float(tensor.abs().max()) == 0:
                tensor.copy_(torch.randn_like(tensor) / 30)
    for module in twin.modules():
        if hasattr(module, "momentum"):
            module.momentum = 0.9
    twin.train()(x)
    twin.eval()


def _logits(found: Any) -> np.ndarray:
    """Logits `[B, …, K]`; segmenters return a dict of `[B, K, H, W]`."""
    if isinstance(found, dict):
        return np.moveaxis(found["out"].numpy(), 1, -1)
    return found.numpy()


def table(rows: list[Compared], *, titled: bool) -> str:
    """Markdown."""
    titles = ["", "network", "layout", "params", "input", "largest difference", "largest logit"]
    titles.append("between two inputs")
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)] if titled else []
    for row in rows:
        cells = (
            "✓" if row.agrees else "✗",
            row.network,
            row.layout,
            f"{row.params / 1e6:.2f} M",
            " × ".join(map(str, row.input[:-1])),
            f"{row.difference:.1e}",
            f"{row.logit:.2f}",
            f"{row.between:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
