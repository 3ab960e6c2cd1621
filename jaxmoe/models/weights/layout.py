"""`Layout`: how a published network names its tensors, and which of our params each becomes.

A layout is a table from PyTorch's names of modules to ours. What a tensor becomes follows from its
own name and its axes: kernels `[out, in, *window]` become `[*window, in, out]`, a norm's `weight`
its `scale`, its running statistics the collection "batch_stats".
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

Tensors = Mapping[str, np.ndarray]
"""Tensors by PyTorch's names."""

_LISTED = 10  # keys of one kind in an error
COUNTERS = "num_batches_tracked"  # of batches that a norm has seen; inference reads none
_STATISTICS = {"running_mean": "mean", "running_var": "var"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of one family of published networks.

    Attributes:
      name: of `LAYOUTS`.
      title: whose networks they are, in words.
      modules: our names of modules by patterns of PyTorch's. `{0}` is the number in the first
        parentheses, `{0:+1}` the next one.
      make: returns our network of such tensors, with their sizes and the pixels that they expect.
      recognises: whether a file's tensors look like this family's.
      example: returns the shape of an input that such tensors take, `[T, H, W, C]` or `[H, W, C]`.
      tensors: our paths of tensors that belong to no module, by their names.
      left_out: patterns of names that our network has no place for, such as a second head.
      prepare: changes tensors before they are looked up.
      head: our module whose size is the number of classes.
      one_size: whether tensors, such as positions, fit the example's height and width alone.
    """

    name: str
    title: str
    modules: Mapping[str, str]
    make: Callable[[Tensors], nn.Module]
    recognises: Callable[[Tensors], bool]
    example: Callable[[Tensors], tuple[int, ...]]
    tensors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    prepare: Callable[[Tensors], Tensors] = dict
    head: str = "head"
    one_size: bool = False


class Filled(NamedTuple):
    """Variables of a network, taken from a file.

    Attributes:
      variables: `{"params": …, "batch_stats": …}`, float32.
      anew: paths that keep what they were drawn as: a head of other classes.
      left_out: names of tensors that our network has no place for.
    """

    variables: Any
    anew: tuple[str, ...]
    left_out: tuple[str, ...]


def fill(
    layout: Layout, tensors: Tensors, like: Mapping[str, Any], *, new_head: bool = False
) -> Filled:
    """Returns variables like `like`, with the numbers of a file.

    Args:
      layout: of the file.
      tensors: of the file.
      like: the variables of our network, nested dicts of arrays; a head whose number of classes is
        not the file's stays as it is there.
      new_head: whether the head stays as it is there anyway.

    Raises:
      ValueError: tensors that have no place, another shape or infinite numbers, and places that
        have no tensor; one line that names them.
    """
    wanted, taken = dict(_paths(like)), dict[str, Any]()
    unknown, shapes, infinite, left_out, anew = [], [], [], [], []
    for name, tensor in layout.prepare(tensors).items():
        if name.rpartition(".")[2] == COUNTERS:
            continue
        if any(re.fullmatch(pattern, name) for pattern in layout.left_out):
            left_out.append(name)
            continue
        path, value = _place_of(layout, name, tensor)
        if path not in wanted or path in taken:
            unknown.append(name)
            continue
        own = wanted[path]
        value = _in_shape(value, own.shape)
        with np.errstate(over="ignore"):  # it is infinite then, and refused
            taken[path] = value.astype(np.float32)
        of_head = path.split("/")[1] == layout.head
        if of_head and (new_head or _differs_in_classes(value.shape, own.shape)):
            anew.append(path)
            taken[path] = own
        elif value.shape != own.shape:
            shapes.append(f"{name} {tensor.shape} as {path} {own.shape}")
        elif not np.all(np.isfinite(taken[path])):
            infinite.append(name)
    _refuse(
        layout,
        {
            "unknown keys": unknown,
            "nothing for": [path for path in wanted if path not in taken],
            "other shapes": shapes,
            "numbers that are not finite": infinite,
        },
    )
    return Filled(_nested(taken), tuple(anew), tuple(left_out))


def _place_of(layout: Layout, name: str, tensor: np.ndarray) -> tuple[str | None, np.ndarray]:
    """Returns where a tensor goes, such as "params/stem/kernel", its axes in our order.

    The place is None where nobody knows it.
    """
    own = _renamed(layout.tensors, name)
    if own is not None:
        return f"params/{own}", tensor
    module, _, leaf = name.rpartition(".")
    place = _renamed(layout.modules, module)
    if place is None:
        return None, tensor
    if leaf in _STATISTICS:
        return f"batch_stats/{place}/{_STATISTICS[leaf]}", tensor
    if leaf == "weight" and tensor.ndim > 1:
        return f"params/{place}/kernel", np.moveaxis(tensor, (1, 0), (-2, -1))
    kind = {"bias": "bias", "weight": "scale"}.get(leaf)
    return kind and f"params/{place}/{kind}", tensor


def _renamed(names: Mapping[str, str], name: str) -> str | None:
    for pattern, template in names.items():
        if match := re.fullmatch(pattern, name):
            return template.format(*map(_Place, match.groups()))
    return None


class _Place(int):
    """A number in a name; `{0:+1}` counts from one what they count from zero."""

    def __format__(self, shift: str) -> str:
        return str(self + int(shift or 0))


def _in_shape(value: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor in the wanted shape if that has the same axes, apart or with more ones."""
    # A window of 1, in time or in place of a linear layer.
    same = [n for n in value.shape if n > 1] == [n for n in wanted if n > 1]
    longer = value.ndim != len(wanted)
    return value.reshape(wanted) if longer and (same or _are_heads(value, wanted)) else value


def _are_heads(value: np.ndarray, wanted: tuple[int, ...]) -> bool:
    """Returns whether `wanted` has the heads of attention apart, of a linear layer or its bias."""
    if value.ndim == 1 and len(wanted) == 2:
        return value.size == math.prod(wanted)
    if value.ndim != 2 or len(wanted) != 3:
        return False
    before, after = math.prod(wanted[:2]), math.prod(wanted[1:])
    return value.shape in ((wanted[0], after), (before, wanted[2]))


def _differs_in_classes(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return found[:-1] == wanted[:-1] and found[-1] != wanted[-1]


def _refuse(layout: Layout, found: Mapping[str, list[str]]) -> None:
    """Raises a ValueError if there is anything to name."""
    said = [f"{what}: {_listed(names)}" for what, names in found.items() if names]
    if said:
        raise ValueError(
            f"it does not fit {layout.name} of this size ({layout.title}); {'; '.join(said)}"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    more = len(names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def _paths(tree: Any, before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{path}/")
        else:
            yield path, value


def _nested(found: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in found.items():
        *folders, name = path.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = value
    return tree
