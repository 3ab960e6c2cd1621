"""`read_state_dict`: the tensors of a file by name, whatever is around them."""

import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmoe.models.weights.safetensors_files import is_safetensors, read_safetensors
from jaxmoe.models.weights.torch_files import LEGACY, Tensor, open_torch

# Training scripts save a state dict beside their epoch and optimiser, under one of these.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights")
# Wrappers of modules, such as `DataParallel` and `torch.compile`, put these before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_DEEPEST = 3  # dicts around the state dict


def read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a `.safetensors` file or of one that `torch.save` wrote, by name.

    A dict around the state dict and prefixes that all names share, such as "module.", are left out.
    Nothing in the file is run, and torch is not needed.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file of another kind, a damaged one, or one that holds no tensors; one line
        with the path.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a state dict of PyTorch")
    if _is_torch(path):
        with open_torch(path) as held:
            found = {name: tensor.array() for name, tensor in _tensors_of(held, path).items()}
    elif is_safetensors(path):
        found = read_safetensors(path)
    else:
        raise ValueError(
            f"{path}: it is neither a file of torch.save nor a safetensors file; expected one"
        )
    if not found:
        raise ValueError(f"{path}: it holds no tensors")
    return _without_prefixes(found)


def _is_torch(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(LEGACY)) == LEGACY or zipfile.is_zipfile(path)


def _tensors_of(found: Any, path: pathlib.Path) -> dict[str, Tensor]:
    """The state dict itself, of what a file holds."""
    for _ in range(_DEEPEST):
        inner = [found[name] for name in _WRAPPERS if isinstance(found, dict) and name in found]
        found = next((value for value in inner if isinstance(value, dict)), found)
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: it holds a {type(found).__name__}; expected a state dict, or a dict with one"
        )
    tensors = {n: v for n, v in found.items() if isinstance(n, str) and isinstance(v, Tensor)}
    if not tensors:
        held = ", ".join(map(repr, list(found)[:10])) or "nothing"
        raise ValueError(
            f"{path}: it holds no tensors but {held}; expected a state dict, or one under "
            f"{', '.join(_WRAPPERS)}"
        )
    return tensors


def _without_prefixes(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = dict(tensors)
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in found)), None):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found
