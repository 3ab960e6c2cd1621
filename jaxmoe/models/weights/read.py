"""`read`: a network and its variables, from a file of PyTorch's."""

import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxmoe.models.weights.layout import Layout, Tensors, fill
from jaxmoe.models.weights.layouts import LAYOUTS
from jaxmoe.models.weights.state_dict import read_state_dict
from jaxmoe.spelling import did_you_mean

_SHOWN = 5  # names of a file that nobody knows


class Weights(NamedTuple):
    """A network as a file has it.

    Attributes:
      model: the Flax module, whose `apply(variables, x)` takes pixels in [0, 1], channels last.
      variables: `{"params": …}`, and `"batch_stats"` of networks with batch normalisation, whose
        statistics no call updates.
      layout: of `LAYOUTS`, the family that the file's names are of.
      left_out: names of tensors that have no place, such as those of a second head.
    """

    model: nn.Module
    variables: Any
    layout: str
    left_out: tuple[str, ...]


def read(path: str | pathlib.Path, layout: str | None = None) -> Weights:
    """Returns the network whose weights a file has.

    The file is a state dict that `torch.save` or safetensors wrote. torch is not needed, and
    nothing in the file is run.

    Args:
      path: of the file.
      layout: of `LAYOUTS`; None recognises it by the file's names.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file, one that holds more than tensors, or names and shapes of no known
        network; one line.
    """
    path = pathlib.Path(path)
    tensors = read_state_dict(path)
    chosen = find_layout(tensors, path, layout)
    model = make_model(chosen, tensors, path)
    shape = (1, *chosen.example(tensors))
    like = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))
    try:
        filled = fill(chosen, tensors, like)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Weights(model, filled.variables, chosen.name, filled.left_out)


def find_layout(tensors: Tensors, path: pathlib.Path, name: str | None = None) -> Layout:
    """Returns the layout of that name, or else the one that the names in a file are of.

    Raises:
      ValueError: no such layout, or names of none or of several.
    """
    if name is not None:
        if name not in LAYOUTS:
            raise ValueError(f"layout: {name!r} is not accepted{did_you_mean(name, LAYOUTS)}")
        return LAYOUTS[name]
    fitting = [layout for layout in LAYOUTS.values() if layout.recognises(tensors)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " or ".join(layout.name for layout in fitting)
        raise ValueError(f"{path}: its names are of several layouts; expected --layout {names}")
    shown = ", ".join(list(tensors)[:_SHOWN])
    raise ValueError(
        f"{path}: its names are of no known layout ({shown}, …); expected one of "
        f"{', '.join(LAYOUTS)}"
    )


def make_model(layout: Layout, tensors: Tensors, path: pathlib.Path) -> nn.Module:
    """Returns the network of a file's tensors.

    Raises:
      ValueError: tensors are missing that would tell its sizes, or tell impossible ones.
    """
    try:
        return layout.make(tensors)
    except KeyError as error:
        raise ValueError(f"{path}: it is no {layout.title}: {error} is missing") from None
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: it is no {layout.title}: {error}") from None
