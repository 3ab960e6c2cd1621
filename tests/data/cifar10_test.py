"""CIFAR-10 from archives of the published layouts, made here: the path that a user takes."""

import hashlib
import io
import os
import pickle
import struct
import sys
import tarfile

import numpy as np
import pytest

from jaxmoe.cli import main
from jaxmoe.data import load_dataset
from jaxmoe.data.builders import cifar10

NAMES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
EACH = 10


def images(batch: int) -> np.ndarray:
    """Channels last, as the data set gives them."""
    rng = np.random.default_rng(batch)
    return rng.integers(0, 256, (EACH, 32, 32, 3), np.uint8)


def labels(batch: int) -> np.ndarray:
    return (np.arange(EACH) + batch) % 10


def binary(batch: int) -> bytes:
    """The published format: a byte of label, then the rows of red, of green and of blue."""
    content = b""
    for image, label in zip(images(batch), labels(batch), strict=True):
        content += bytes([label]) + b"".join(image[..., c].tobytes() for c in range(3))
    return content


def pickled(batch: int) -> bytes:
    """As Python 2 wrote it: protocol 2, strings of bytes, NumPy by its old names."""
    planes = np.stack([image.transpose(2, 0, 1).ravel() for image in images(batch)])

    def text(content: bytes) -> bytes:
        return b"U" + bytes([len(content)]) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    empty += number(0) + b"\x85" + text(b"b") + b"\x87R"
    shape = b"(" + b"".join(map(number, planes.shape)) + b"t"
    content = b"T" + struct.pack("<i", planes.size) + planes.tobytes()
    array = empty + b"(" + number(1) + shape + dtype + b"\x89" + content + b"tb"
    numbers = b"](" + b"".join(map(number, labels(batch).tolist())) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


FILES = {
    "binary": {
        "cifar-10-batches-bin/batches.meta.txt": "\n".join(cifar10.CLASSES).encode(),
        **{f"cifar-10-batches-bin/{name}.bin": binary(i) for i, name in enumerate(NAMES)},
    },
    "python": {f"cifar-10-batches-py/{name}": pickled(i) for i, name in enumerate(NAMES)},
}


def archive(folder, version="binary", **changes) -> os.PathLike:
    file = folder / f"cifar-10-{version}.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        for name, content in {**FILES[version], **changes}.items():
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file


def load(directory, tmp_path):
    return load_dataset("cifar10", directory=directory, cache=tmp_path / "cache")


def check(dataset) -> None:
    assert dataset.classes[:2] == ("airplane", "automobile")
    assert (len(dataset.test), len(dataset.train) + len(dataset.validation)) == (EACH, 5 * EACH)
    for i in range(EACH):
        example = dataset.test[i]
        assert example["label"] == labels(5)[i]
        np.testing.assert_array_equal(example["frames"][np.array([0])][0], images(5)[i])
    stored = np.concatenate([images(batch) for batch in range(5)])
    numbers = np.concatenate([labels(batch) for batch in range(5)])
    for source in (dataset.train, dataset.validation):
        for example in map(source.__getitem__, range(len(source))):
            np.testing.assert_array_equal(
                example["frames"][np.array([0])][0], stored[example["index"]]
            )
            assert example["label"] == numbers[example["index"]]


@pytest.mark.parametrize("version", ["binary", "python"])
def test_an_archive_what_it_held_and_where_they_lie(tmp_path, version):
    (tmp_path / "data").mkdir()
    file = archive(tmp_path / "data", version)
    check(load(file, tmp_path))
    folders = {load(tmp_path / "data", tmp_path).folder}
    with tarfile.open(file) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    (inner,) = (tmp_path / "out").iterdir()
    for directory in (tmp_path / "out", inner):
        dataset = load(directory, tmp_path)
        check(dataset)
        folders.add(dataset.folder)
    assert len(folders) == 1  # one data set, prepared once


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    evil = pickle.dumps({b"data": Evil(), b"labels": [0]}, protocol=2)
    file = archive(tmp_path, "python", **{"cifar-10-batches-py/data_batch_2": evil})
    with pytest.raises(ValueError, match=r"^data\.directory: data_batch_2 of .* is damaged"):
        load(file, tmp_path)
    assert not (tmp_path / "run").exists()


def test_what_is_no_whole_cifar10_is_one_line(tmp_path):
    def said(directory, error=ValueError):
        with pytest.raises(error, match=r"^data\.directory: .*expected cifar-10-binary") as raised:
            load(directory, tmp_path)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    third = "cifar-10-batches-bin/data_batch_3.bin"
    assert "neither data_batch_3.bin nor" in said(archive(tmp_path, **{third: None}))
    for broken in (binary(2)[:-1], bytes([10]) + binary(2)[1:], b""):
        assert "data_batch_3 of" in said(archive(tmp_path, **{third: broken}))
    whole = archive(tmp_path).read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", b""):
        (tmp_path / "cut.tar.gz").write_bytes(content)
        assert "no whole archive" in said(tmp_path / "cut.tar.gz")
    (tmp_path / "empty").mkdir()
    assert "holds no CIFAR-10" in said(tmp_path / "empty", FileNotFoundError)
    assert "does not exist" in said(tmp_path / "nowhere", FileNotFoundError)


def test_the_download_is_checked_and_kept(tmp_path, monkeypatch):
    (tmp_path / "server").mkdir()
    file = archive(tmp_path / "server")
    monkeypatch.setattr(cifar10, "_URL", file.as_uri())
    with pytest.raises(ValueError, match=r"^data\.directory: not given, .*not the published"):
        load(None, tmp_path)
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []
    monkeypatch.setattr(cifar10, "_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    check(load(None, tmp_path))
    file.unlink()
    check(load(None, tmp_path))


def test_without_a_network_one_line_says_what_to_name(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_URL", "http://127.0.0.1:1/cifar-10-binary.tar.gz")
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ValueError, match=r"^data\.directory: not given, and .*refused.*expected"):
        load(None, tmp_path)


def test_the_command_shows_it_without_tensorflow(tmp_path, capsys):
    arguments = ["--name", "cifar10", "--directory", str(archive(tmp_path)), "--cache"]
    assert main(["data", *arguments, str(tmp_path / "cache")]) == 0
    output = capsys.readouterr()
    assert "cifar10: 10 classes" in output.out
    assert output.err == ""
    assert "tensorflow" not in sys.modules
