"""Reads what `torch.save` wrote, without torch: the zip format, and the one before torch 1.6.

A file is a pickle in which each tensor names a storage, and the storages' bytes. The formats are
those of https://docs.pytorch.org/docs/stable/notes/serialization.html. Numbers are little-endian.
"""

import contextlib
import dataclasses
import errno
import io
import math
import mmap
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmoe.models.weights.pickles import Allowed, Inert, RefusedPickle, read_pickle

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
LEGACY = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of that number, which it begins with
)
_STORAGES: dict[str, Any] = {
    "torch.FloatStorage": np.float32,
    "torch.DoubleStorage": np.float64,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": jnp.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
    "torch.UntypedStorage": np.uint8,
    "torch.storage.UntypedStorage": np.uint8,
}
_DTYPES: dict[str, Any] = {
    **{f"torch.{name}": getattr(np, name) for name in ("float16", "float32", "float64")},
    **{f"torch.{name}": getattr(np, name) for name in ("int8", "int16", "int32", "int64", "uint8")},
    "torch.bfloat16": jnp.bfloat16,
    "torch.bool": np.bool_,
}
# What zipfile raises: an archive that is none, or is packed or encrypted in ways that it lacks.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error),
    *(NotImplementedError, RuntimeError, UnicodeDecodeError),
)
_ADVICE = "expected a state dict: torch.save(model.state_dict(), FILE)"


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers in a row, somewhere in the file.

    Attributes:
      dtype: of each.
      count: how many there are.
      read: returns their bytes, fewer of them if the file is cut off.
    """

    dtype: np.dtype
    count: int
    read: Callable[[], bytes]

    @property
    def bytes(self) -> int:
        """How many bytes they take."""
        return self.count * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that was not read yet: a view of a storage, in elements of its dtype."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Returns its numbers, copied.

        Raises:
          RefusedPickle: the file does not hold them.
        """
        storage = self.storage
        data = storage.read()
        if len(data) < storage.bytes:
            raise RefusedPickle("it is cut off: a tensor's numbers are missing")
        flat = np.frombuffer(data, storage.dtype, storage.count)
        steps = [step * storage.dtype.itemsize for step in self.strides]
        view = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, steps, writeable=False
        )
        return np.array(view)


@contextlib.contextmanager
def open_torch(path: pathlib.Path) -> Iterator[Any]:
    """Opens a file of `torch.save` and yields what it holds, each tensor as a `Tensor`.

    Raises:
      ValueError: something else than tensors, numbers, text and containers, or a damaged file; one
        line with the path. Nothing in it was run.
    """
    try:
        with path.open("rb") as file:
            legacy = file.read(len(LEGACY)) == LEGACY
            if not legacy:
                with zipfile.ZipFile(path) as archive:
                    yield _read_zip(archive)
                return
            # A map reads no more than is there, however much a damaged file asks for.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield _read_legacy(data)
    except RefusedPickle as error:
        raise ValueError(f"{path}: {error}; {_ADVICE}") from None
    except _DAMAGE as error:
        raise ValueError(f"{path}: it is damaged or cut off ({error}); copy it anew") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the file's beginning
            raise
        raise ValueError(f"{path}: it is damaged or cut off; copy it anew") from None


def _read_zip(archive: zipfile.ZipFile) -> Any:
    names = set(archive.namelist())
    if any(name.endswith("/constants.pkl") for name in names):
        raise RefusedPickle("it is a TorchScript program")
    roots = [n.removesuffix("data.pkl") for n in names if n.count("/") == 1 and "/data.pkl" in n]
    if len(roots) != 1:
        raise RefusedPickle("it is a zip file without data.pkl, which torch.save writes")
    (root,) = roots

    def read(name: str) -> bytes:
        if name not in names:
            raise RefusedPickle(f"it is damaged: {name} is missing")
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise RefusedPickle(f"it was packed anew: {name} is compressed")
        return archive.read(name)

    if f"{root}byteorder" in names and read(f"{root}byteorder") != b"little":
        raise RefusedPickle("its numbers are not little-endian")

    def find(key: Any) -> Callable[[], bytes]:
        return lambda: read(f"{root}data/{key}")

    stored = _Storages(find)
    return read_pickle(io.BytesIO(read(f"{root}data.pkl")), _allowed(), stored.find)


def _read_legacy(data: mmap.mmap) -> Any:
    head = [read_pickle(data, {}, _no_storage) for _ in range(3)]
    if head[:2] != [_MAGIC, _PROTOCOL] or not isinstance(head[2], dict):
        raise RefusedPickle("its head is none that torch.save writes")
    if not head[2].get("little_endian", True):
        raise RefusedPickle("its numbers are not little-endian")
    places: dict[Any, int] = {}

    def find(key: Any) -> Callable[[], bytes]:
        return lambda: data[places[key] : places[key] + stored.by_key[key].bytes]

    stored = _Storages(find)
    found = read_pickle(data, _allowed(), stored.find)
    keys = read_pickle(data, {}, _no_storage)
    if not isinstance(keys, list) or set(keys) != set(stored.by_key):
        raise RefusedPickle("it is damaged: its storages are not those of its tensors")
    for key in keys:
        storage = stored.by_key[key]
        (count,) = struct.unpack("<q", data.read(8))
        if count != storage.count:
            raise RefusedPickle(f"it is damaged: storage {key} has {count} numbers")
        places[key] = data.tell()
        data.seek(min(places[key] + storage.bytes, len(data)))
    return found


class _Storages:
    """The storages of one file, by the keys that its pickle has for them."""

    def __init__(self, find: Callable[[Any], Callable[[], Any]]):
        self._find = find
        self.by_key: dict[Any, Storage] = {}

    def find(self, reference: Any) -> Storage:
        """Returns the storage of a reference `("storage", type, key, device, count)`."""
        match reference:
            case ("storage", Allowed(name), str() | int() as key, _, int(count), *view):
                pass
            case ("module", *_):
                raise RefusedPickle("it holds a whole model, with its program")
            case _:
                raise RefusedPickle("it is damaged: a reference to no storage")
        if view not in ([], [None]):
            raise RefusedPickle("it holds a view of a storage, as torch 0.3 wrote them")
        if name not in _STORAGES or count < 0:
            raise RefusedPickle(f"it is damaged: {name} of {count} numbers is no storage")
        found = Storage(np.dtype(_STORAGES[name]), count, self._find(key))
        return self.by_key.setdefault(key, found)


def _no_storage(reference: Any) -> Any:
    del reference
    raise RefusedPickle("it is damaged: a storage is out of place")


def _allowed() -> dict[str, Callable[..., Any] | None]:
    """The names that a state dict needs, and what each makes here."""
    return {
        "collections.OrderedDict": _ordered,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
        "torch._utils._rebuild_parameter": _parameter,
        "torch.Size": lambda sizes: tuple(sizes),
        "torch.device": lambda *_: Inert(),
        # Numbers of NumPy, such as the best accuracy so far; nobody reads them.
        "numpy.core.multiarray.scalar": lambda *_: Inert(),
        "numpy._core.multiarray.scalar": lambda *_: Inert(),
        "numpy.dtype": lambda *_: Inert(),
        "_codecs.encode": lambda *_: Inert(),
        **dict.fromkeys(_STORAGES),
        **dict.fromkeys(_DTYPES),
    }


def _ordered(*items: Any) -> dict:
    if items not in ((), ([],)):
        raise RefusedPickle("it is damaged: a dict of another kind")
    return {}


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise RefusedPickle("it is damaged: a parameter that is no tensor")
    return data


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """Returns a tensor that lies within its storage.

    Raises:
      RefusedPickle: it does not.
    """
    numbers = (shape, strides) if all(isinstance(n, tuple) for n in (shape, strides)) else ((), ())
    whole = (offset, *numbers[0], *numbers[1])
    if (
        not isinstance(storage, Storage)
        or len(numbers[0]) != len(numbers[1])
        or not all(isinstance(n, int) and n >= 0 for n in whole)
    ):
        raise RefusedPickle("it is damaged: a tensor without a storage, a shape or strides")
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise RefusedPickle(
            f"it is damaged: a tensor of shape {shape} and strides {strides} leaves its storage of "
            f"{storage.count} numbers"
        )
    return Tensor(storage, min(offset, storage.count), shape, strides)


def _tensor_of_bytes(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    """Returns a tensor that says its dtype by itself, of a storage of bytes."""
    del grad, hooks
    known = isinstance(storage, Storage) and isinstance(dtype, Allowed) and dtype.name in _DTYPES
    if not known:
        raise RefusedPickle("it is damaged: a tensor of no dtype")
    own = np.dtype(_DTYPES[dtype.name])
    count = storage.bytes // own.itemsize
    return _tensor(Storage(own, count, storage.read), offset, shape, strides)
