"""Reads safetensors files: a table of names, dtypes, shapes and places, and then the numbers.

The format is that of https://huggingface.co/docs/safetensors: eight bytes with the table's length,
the table as JSON, and the bytes of all tensors, little-endian and in order of their axes.
"""

import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def is_safetensors(path: pathlib.Path) -> bool:
    """Returns whether a file begins as one of this format does."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the tensors by name.

    Raises:
      ValueError: a damaged or cut off file, or numbers of a kind that is not read; one line with
        the path.
    """
    data = np.memmap(path, np.uint8, "r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > len(data) - 8:
        raise ValueError(f"{path}: it is damaged or cut off: its table is longer than the file")
    try:
        table = json.loads(data[8 : 8 + length].tobytes(), object_pairs_hook=_unique)
        table.pop("__metadata__", None)
        body = data[8 + length :]
        return {name: _tensor(name, entry, body) for name, entry in table.items()}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: it is damaged or cut off: {why}") from None


def _tensor(name: str, entry: dict[str, Any], body: np.ndarray) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{name} has numbers of kind {entry['dtype']}; expected {list(_DTYPES)}")
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"]
    begin, end = entry["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name} has a shape or a place that is no number")
    if end > len(body) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} of shape {tuple(shape)} lies in bytes {begin} to {end}")
    return np.frombuffer(body[begin:end].tobytes(), dtype).reshape(shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found
