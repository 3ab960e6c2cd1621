"""The edge: brings what a person hands to an attack into the one form that attacks take.

Pixels become floats of 32 bits or more, labels int32, a key typed. Shapes and dtypes are checked
always; values where they can be looked at, outside of `jit`.
Axes: B = batch, T = frames, H W = height, width, C = channels, K = classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxmoe.threat import ThreatModel

UNIT = (0.0, 1.0)  # the bounds that 255 grey levels stand for
COLOURS = (1, 3, 4)  # channels of pictures: grey, RGB, RGB with transparency
_ROUNDING = 1e-5  # of resized pictures beyond the bounds


def is_traced(*trees: Any) -> bool:
    """Returns whether any leaf stands for a value that is not known yet, as under `jit`."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def widest(*dtypes: Any) -> np.dtype:
    """The widest of float dtypes, float32 at least."""
    return max([np.dtype(jnp.float32), *map(np.dtype, dtypes)], key=lambda one: jnp.finfo(one).bits)


def to_pixels(clip: Array, bounds: tuple[float, float] = UNIT) -> Float[Array, "batch ..."]:
    """Returns pixels as floats of 32 bits or more; uint8 grey levels become 0 to 1.

    Raises:
      ValueError: another dtype, or grey levels where pixels are not from 0 to 1.
    """
    clip = jnp.asarray(clip)
    if clip.dtype == jnp.uint8 and tuple(bounds) == UNIT:
        return clip.astype(jnp.float32) / 255
    if not jnp.issubdtype(clip.dtype, jnp.floating):
        raise ValueError(f"clip: pixels of {clip.dtype}; expected {_accepted(bounds)}")
    return clip.astype(widest(clip.dtype))


def check_pixels(clip: np.ndarray, bounds: tuple[float, float] = UNIT) -> None:
    """Refuses what is neither grey levels as uint8 nor finite floats within `bounds`.

    A pixel outside of them may stay where it is, which no attack could change.

    Raises:
      ValueError: one line with the dtype or the range.
    """
    grey = clip.dtype == np.uint8 and tuple(bounds) == UNIT
    if grey or not clip.size:
        return
    if not jnp.issubdtype(clip.dtype, jnp.floating):
        raise ValueError(f"clip: pixels of {clip.dtype}; expected {_accepted(bounds)}")
    low, high = float(np.min(clip)), float(np.max(clip))
    if not (low >= bounds[0] - _ROUNDING and high <= bounds[1] + _ROUNDING):
        hint = ", such as x / 255" if low >= 0 and 1 < high <= 255 and tuple(bounds) == UNIT else ""
        raise ValueError(
            f"clip: pixels from {low:.4g} to {high:.4g}; expected floats in "
            f"[{bounds[0]:g}, {bounds[1]:g}]{hint}"
        )


def _accepted(bounds: tuple[float, float]) -> str:
    floats = f"floats in [{bounds[0]:g}, {bounds[1]:g}]"
    return f"uint8, or {floats}" if tuple(bounds) == UNIT else floats


def check_label_shape(label: Any, logits: tuple[int, ...]) -> None:
    """Refuses labels that are not integers of the shape of `logits` without the classes.

    Args:
      label: anything with a shape and a dtype.
      logits: their shape, [B, …, K].

    Raises:
      ValueError: one line with both shapes, and what one-hot labels or a column should be.
    """
    integers = jnp.issubdtype(label.dtype, jnp.integer)
    if integers and label.shape == logits[:-1]:
        return
    kind = ""
    if label.shape == logits and len(logits) > 1:
        kind = " look one-hot (try label.argmax(-1))"
    elif label.shape == (*logits[:-1], 1):
        kind = " are a column (try label[..., 0])"
    elif label.shape == logits[:-1]:
        kind = " are no integers (try label.astype(int))"
    raise ValueError(
        f"label: {label.dtype} of shape {list(label.shape)} on logits of shape "
        f"{list(logits)}{kind}; expected integers of shape {list(logits[:-1])}"
    )


def check_labels(label: np.ndarray, classes: int) -> None:
    """Refuses labels that are no class of the model, nor −1 of void positions.

    Raises:
      ValueError: one line with their range, and whether they look numbered from 1.
    """
    least = 0 if label.ndim == 1 else -1
    if np.all((label >= least) & (label < classes)):
        return
    from_1 = label.max() == classes and not np.any(label == 0)
    raise ValueError(
        f"label: {label.min()} to {label.max()} on a model of {classes} classes; expected "
        f"{least} to {classes - 1}{' (these look numbered from 1)' if from_1 else ''}"
    )


def as_key(key: Any) -> Key[Array, "*batch"]:
    """Returns a typed key, or one for each example, of a typed one, a legacy one or a seed.

    Raises:
      ValueError: what is none of them.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if isinstance(key, int) and not isinstance(key, bool):
        return jax.random.key(key)
    if dtype is not None and jnp.issubdtype(dtype, jnp.integer):
        legacy = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
        if dtype == jnp.uint32 and shape[-1:] == legacy and len(shape) <= 2:
            return jax.random.wrap_key_data(jnp.asarray(key))
        if shape == ():
            return jax.random.key(key)
    given = type(key).__name__ if shape is None else f"{dtype} of shape {list(shape)}"
    raise ValueError(
        f"key: {given}; expected jax.random.key(0), one for each example, or a whole number as seed"
    )


def check_axes(name: str, shape: tuple[int, ...], *, picture: bool, temporal: bool) -> None:
    """Refuses shapes that look channels-first, for an attack that reads the axes.

    Args:
      name: of the attack.
      shape: of the inputs.
      picture: whether the attack reads height, width and channels as the last three axes.
      temporal: whether it reads the second axis as frames.

    Raises:
      ValueError: one line with the shape and how to turn it.
    """
    if temporal and looks_like_images(shape):
        raise ValueError(
            f"{name}: inputs of shape {list(shape)} look like images, and it attacks in time; "
            "expected clips [B, T, H, W, C], or an attack such as pgd or pgd-r"
        )
    order = _order_of_axes(shape)
    reads_it = picture or (temporal and len(shape) == 5 and order[1] != 1)
    if order == tuple(range(len(shape))) or not reads_it:
        return
    read = "[B, H, W, C]" if len(shape) == 4 else "[B, T, H, W, C]"
    back = tuple(np.argsort(order).tolist())
    raise ValueError(
        f"{name}: inputs of shape {list(shape)} look channels-first, and it reads {read}; expected "
        f"x.transpose{order}, and lambda params, x: model(params, x.transpose{back}) as the model"
    )


def looks_like_images(shape: tuple[int, ...]) -> bool:
    """Returns whether inputs are [B, H, W, C] with the channels of a picture."""
    return len(shape) == 4 and shape[3] in COLOURS and _is_plane(*shape[1:3])


def channels_last(shape: tuple[int, ...]) -> str:
    """Returns code that turns inputs that look channels-first; empty where they do not."""
    order = _order_of_axes(shape)
    return "" if order == tuple(range(len(shape))) else f"x.transpose{order}"


def _order_of_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The order that puts channels last, of shapes that look as if they were not there."""
    as_it_is = tuple(range(len(shape)))
    if len(shape) not in (4, 5) or not _is_plane(*shape[-2:]):
        return as_it_is
    if len(shape) == 4:
        return (0, 2, 3, 1) if shape[1] in COLOURS else as_it_is
    # Of one frame of three colours and three frames of one, the former is meant.
    behind_frames = shape[2] in COLOURS and not (shape[1] in COLOURS and shape[1] > shape[2])
    if behind_frames:
        return (0, 1, 3, 4, 2)
    # A few frames of square pictures may have many channels, such as stacked optical flow.
    many_channels = shape[2] == shape[3] != shape[4]
    return (0, 2, 3, 4, 1) if shape[1] in COLOURS and not many_channels else as_it_is


def _is_plane(height: int, width: int) -> bool:
    """Whether two axes can be those of a picture: neither counts colours, neither is a line."""
    small, large = sorted((height, width))
    return small > max(COLOURS) and large <= 4 * small


def check_params(params: Any) -> Any:
    """Returns params whose leaves are arrays, not such as those of a whole Equinox model.

    Raises:
      ValueError: one line with the first such leaf's type.
    """
    for leaf in jax.tree.leaves(params):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float | complex):
            raise ValueError(
                f"params: a leaf of type {type(leaf).__name__}; expected arrays, such as state of "
                "graph, state = nnx.split(model) with lambda state, x: nnx.merge(graph, state)(x), "
                "or arrays of arrays, rest = equinox.partition(model, equinox.is_array)"
            )
    return params


def check_epsilon(threat: ThreatModel, batch: int | None = None) -> None:
    """Refuses an ε that is not one number ≥ 0, or one for each example of a batch.

    Raises:
      ValueError: one line with its shape or its value.
    """
    epsilon = threat.epsilon
    if epsilon is None:
        raise ValueError("threat.epsilon: None; expected a number ≥ 0, such as 8/255")
    if batch is not None and jnp.shape(epsilon) not in ((), (batch,)):
        raise ValueError(
            f"threat.epsilon: shape {list(jnp.shape(epsilon))} for {batch} examples; expected one "
            "number, or one for each"
        )
    if is_visible(epsilon) and not np.all((np.asarray(epsilon) >= 0) & np.isfinite(epsilon)):
        raise ValueError(f"threat.epsilon: {epsilon} is not finite and ≥ 0")


def is_visible(values: Any) -> bool:
    """Returns whether values can be looked at: known, and on this machine."""
    return not is_traced(values) and getattr(values, "is_fully_addressable", True)
