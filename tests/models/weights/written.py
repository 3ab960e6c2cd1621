"""State dicts as PyTorch writes them, written here byte by byte: no test needs torch.

`launch/versus/imported_weights.py` reads files of torch itself.
"""

import io
import json
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


class Name(NamedTuple):
    """A global, by its module and name."""

    module: str
    name: str


class Call(NamedTuple):
    """A global that is called when the pickle is read."""

    function: Name
    arguments: tuple


class Reference(NamedTuple):
    """What lies elsewhere in the file."""

    value: tuple


REBUILD = Name("torch._utils", "_rebuild_tensor_v2")


def pickled(value: Any, protocol: int = 2) -> bytes:
    """A whole pickle."""
    return b"\x80" + bytes([protocol]) + _operations(value) + b"."


def _operations(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case True | False:
            return b"\x88" if value else b"\x89"
        case int():
            if abs(value) < 2**31:
                return b"J" + struct.pack("<i", value)
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case Name(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return _operations(function) + _operations(arguments) + b"R"
        case Reference(inner):
            return _operations(inner) + b"Q"
        case tuple():
            return b"(" + b"".join(map(_operations, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_operations, value)) + b"e"
        case dict():
            items = b"".join(_operations(k) + _operations(v) for k, v in value.items())
            return b"}(" + items + b"u"
    raise TypeError(value)


def ordered(state: Mapping[str, Any]) -> bytes:
    """The operations of an OrderedDict with an attribute, as `state_dict()` returns it."""
    items = b"".join(_operations(k) + _operations(v) for k, v in state.items())
    attribute = _operations({"_metadata": {"": {"version": 1}}})
    return (
        _operations(Call(Name("collections", "OrderedDict"), ()))
        + b"("
        + items
        + b"u"
        + (attribute + b"b")
    )


def tensor(key: str, array: np.ndarray, **changed: Any) -> Call:
    """A tensor of a storage; `changed` replaces what the file says of it."""
    count, legacy = changed.get("count", array.size), changed.get("legacy", False)
    kind = Name("torch", changed.get("storage", STORAGES[str(array.dtype)]))
    reference = ("storage", kind, key, "cpu", count) + ((None,) if legacy else ())
    strides = tuple(step // array.itemsize for step in array.strides)
    arguments = (
        Reference(reference),
        changed.get("offset", 0),
        changed.get("shape", array.shape),
        changed.get("strides", strides),
        False,
        Call(Name("collections", "OrderedDict"), ()),
    )
    return Call(changed.get("rebuild", REBUILD), arguments)


def write_zip(
    path: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    *,
    data: bytes | None = None,
    order: bytes | None = b"little",
    compression: int = zipfile.ZIP_STORED,
    **changed: Any,
) -> pathlib.Path:
    """Writes what torch has written since 1.6; `data` in the place of the state dict's pickle."""
    state = {n: tensor(str(i), t, **changed) for i, (n, t) in enumerate(tensors.items())}
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data or b"\x80\x02" + ordered(state) + b".")
        if order is not None:
            archive.writestr("archive/byteorder", order)
        for i, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())
        archive.writestr("archive/version", b"3\n")
    return path


def write_legacy(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> pathlib.Path:
    """Writes what torch wrote before 1.6: pickles, and then the storages."""
    file = io.BytesIO()
    magic = 0x1950A86A20F9469CFC6C
    state = {n: tensor(str(i), t, legacy=True) for i, (n, t) in enumerate(tensors.items())}
    for value in (magic, 1001, {"protocol_version": 1001, "little_endian": True}):
        file.write(pickled(value))
    file.write(b"\x80\x02" + ordered(state) + b".")
    file.write(pickled([str(i) for i in range(len(tensors))]))
    for array in tensors.values():
        file.write(struct.pack("<q", array.size) + array.tobytes())
    path.write_bytes(file.getvalue())
    return path


def write_safetensors(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], **changed: Any
) -> pathlib.Path:
    """Writes a safetensors file; `changed` replaces entries of every tensor in its table."""
    kinds = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16"}
    kinds |= {"int64": "I64", "uint8": "U8", "bool": "BOOL"}
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in tensors.items():
        place = [len(body), len(body) + array.nbytes]
        entry = {"dtype": kinds[str(array.dtype)], "shape": list(array.shape)}
        table[name] = {**entry, "data_offsets": place, **changed}
        body += array.tobytes()
    head = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + body)
    return path


def some_tensors() -> dict[str, np.ndarray]:
    """Tensors of several shapes and dtypes."""
    random = np.random.default_rng(0)
    found = {
        "conv.weight": random.normal(size=(3, 2, 3, 3)).astype(np.float32),
        "half": random.normal(size=4).astype(np.float16),
        "brain": random.normal(size=(2, 2)).astype(ml_dtypes.bfloat16),
        "double": random.normal(size=(2, 1)),
        "bn.num_batches_tracked": np.array(7),
        "mask": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
    }
    return found
