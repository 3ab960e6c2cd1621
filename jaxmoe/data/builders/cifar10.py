"""CIFAR-10 from its published archives, or downloaded: the builder of `cifar10`.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009
(https://www.cs.toronto.edu/~kriz/cifar.html)

N = images
"""

import codecs
import hashlib
import http.client
import io
import os
import pathlib
import pickle
import tarfile
import tempfile
import urllib.request
import zlib

import numpy as np
from jaxtyping import Int, UInt8

from jaxmoe.data.builders.array_builders import ImageArrays
from jaxmoe.data.builders.prepare import cache_folder
from jaxmoe.files import expand_home

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_EXPECTED = (
    "expected cifar-10-binary.tar.gz or cifar-10-python.tar.gz of "
    "https://www.cs.toronto.edu/~kriz/cifar.html, or the folder that it holds"
)

_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
_VERSIONS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}  # and their files' ending
_ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
_PIXELS = 3 * 32 * 32

Batch = tuple[UInt8[np.ndarray, "N 32 32 3"], Int[np.ndarray, " N"]]


def read_cifar10(
    directory: str | os.PathLike | None, *, cache: str | os.PathLike | None = None, **fields
) -> ImageArrays:
    """Returns the builder of CIFAR-10: 50,000 images for training and 10,000 for the test.

    Args:
      directory: the archive `cifar-10-binary.tar.gz` or `cifar-10-python.tar.gz`, what it was
        extracted to, or a folder with one of these; None downloads the first into the cache, once.
      cache: folder for prepared data, and for the download.
      **fields: of `ImageArrays`.

    Raises:
      ValueError, FileNotFoundError: one line that names the field.
    """
    path = expand_home(directory, "data.directory") if directory else _download(cache)
    if not path.exists():
        raise FileNotFoundError(f"data.directory: {path} does not exist; {_EXPECTED}")
    splits, digest = {}, hashlib.sha256()
    files = _files(path)
    for split, names in _BATCHES.items():
        batches = [_read(path, name, files) for name in names]
        splits[split] = tuple(np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        for array in splits[split]:
            digest.update(array)
    return ImageArrays(splits, CLASSES, f"cifar10 {digest.hexdigest()}", cache=cache, **fields)


def _files(path: pathlib.Path) -> dict[str, bytes]:
    """The contents of the batches' files by name, from an archive or from a folder."""
    wanted = {name + end for names in _BATCHES.values() for name in names for end in (".bin", "")}
    if path.is_dir():
        for folder in (path, *(path / version for version in _VERSIONS)):
            if any((folder / f"test_batch{end}").is_file() for end in _VERSIONS.values()):
                return {name: (folder / name).read_bytes() for name in wanted & _names(folder)}
        archives = [path / name for name in _ARCHIVES if (path / name).is_file()]
        if not archives:
            raise FileNotFoundError(f"data.directory: {path} holds no CIFAR-10; {_EXPECTED}")
        return _files(archives[0])
    try:
        with tarfile.open(path) as archive:
            members = {pathlib.PurePosixPath(m.name).name: m for m in archive if m.isfile()}
            return {name: archive.extractfile(members[name]).read() for name in wanted & {*members}}
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"data.directory: {path} is no whole archive ({reason}); {_EXPECTED}"
        ) from None


def _names(folder: pathlib.Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def _read(path: pathlib.Path, name: str, files: dict[str, bytes]) -> Batch:
    """One batch, of the binary version if its file is there."""
    if f"{name}.bin" in files:
        pixels, labels = _binary(files[f"{name}.bin"])
    elif name in files:
        pixels, labels = _pickled(files[name])
    else:
        raise ValueError(f"data.directory: {path} has neither {name}.bin nor {name}; {_EXPECTED}")
    if pixels is None or not len(labels) or labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"data.directory: {name} of {path} is damaged or no CIFAR-10; {_EXPECTED}")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy(), labels


def _binary(content: bytes) -> tuple[np.ndarray | None, np.ndarray]:
    """Pixels `uint8[N, 3072]` and labels: a byte of label before the bytes of each image."""
    if len(content) % (1 + _PIXELS):
        return None, np.zeros(0, np.int64)
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return rows[:, 1:], rows[:, 0].astype(np.int64)


def _pickled(content: bytes) -> tuple[np.ndarray | None, np.ndarray]:
    """The same of a file of the python version; nothing in it is run."""
    try:
        batch = _Arrays(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = batch[b"data"], np.asarray(batch[b"labels"], np.int64)
        if pixels.dtype == np.uint8 and pixels.shape == (len(labels), _PIXELS):
            return pixels, labels
    # A damaged pickle raises what it likes.
    except Exception:
        pass
    return None, np.zeros(0, np.int64)


_REBUILD = np.empty(0).__reduce__()[0]
_PICKLED = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


class _Arrays(pickle.Unpickler):
    """Reads pickled dictionaries of NumPy arrays, and refuses whatever would call other code."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _PICKLED:
            raise pickle.UnpicklingError(f"{module}.{name} is not expected")
        return _PICKLED[module, name]


def _download(cache: str | os.PathLike | None) -> pathlib.Path:
    """The downloaded archive in the cache; complete, or not there."""
    archive = cache_folder(cache) / "downloads" / _URL.rpartition("/")[-1]
    if archive.is_file():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=archive.parent, delete=False) as file:
        try:
            with urllib.request.urlopen(_URL, timeout=60) as response:
                while part := response.read(2**20):
                    digest.update(part)
                    file.write(part)
            if digest.hexdigest() != _SHA256:
                raise OSError("what came is not the published archive")
            os.replace(file.name, archive)
        except (OSError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"data.directory: not given, and {_URL} cannot be downloaded ({reason}); "
                f"{_EXPECTED}"
            ) from None
        finally:
            pathlib.Path(file.name).unlink(missing_ok=True)
    return archive
