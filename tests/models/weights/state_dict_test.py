"""State dicts are read without torch; nothing in a file is ever run; what is wrong is one line."""

import os
import zipfile

import numpy as np
import pytest

from jaxmoe.models.weights import read_state_dict
from tests.models.weights.written import (
    REBUILD,
    Call,
    Name,
    Reference,
    pickled,
    some_tensors,
    tensor,
    write_legacy,
    write_safetensors,
    write_zip,
)

ONE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pt"


def check_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def refusal(file) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        read_state_dict(file)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(file))
    return line


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_safetensors])
def test_tensors_come_back_to_the_bit(write, file):
    check_same(read_state_dict(write(file, some_tensors())), some_tensors())


def test_views_are_read_as_their_strides_say(file):
    """A transposed part of a storage: 2 × 2 of 2 × 3, the second column on."""
    read = read_state_dict(write_zip(file, ONE, offset=1, shape=(2, 2), strides=(1, 3)))
    np.testing.assert_array_equal(read["a"], [[1, 4], [2, 5]])


@pytest.mark.parametrize("name", ["state_dict", "model", "net", "model_state"])
def test_what_is_around_a_state_dict_is_left_out(name, file):
    state = {"module.conv.weight": tensor("0", ONE["a"]), "module.bn.bias": tensor("0", ONE["a"])}
    best = Call(Name("numpy._core.multiarray", "scalar"), (Name("numpy", "dtype"), "x"))
    around = {"epoch": 7, "arch": "resnet", "best": best, name: state, "optimizer": {"lr": [0.1]}}
    read = read_state_dict(write_zip(file, ONE, data=pickled(around)))
    assert list(read) == ["conv.weight", "bn.bias"]


def test_a_parameter_is_its_tensor(file):
    state = {"a": Call(Name("torch._utils", "_rebuild_parameter"), (tensor("0", ONE["a"]), True))}
    check_same(read_state_dict(write_zip(file, ONE, data=pickled(state))), ONE)


ATTEMPTS = {
    "a call": lambda touch: {"a": Call(Name("os", "system"), (touch,))},
    "posix": lambda touch: {"a": Call(Name("posix", "system"), (touch,))},
    "eval": lambda touch: {
        "a": Call(Name("builtins", "eval"), (f"__import__('os').system({touch!r})",))
    },
    "of Python 2": lambda touch: {"a": Call(Name("__builtin__", "exec"), (touch,))},
    "within a tensor": lambda touch: {
        "a": Call(REBUILD, (Call(Name("os", "system"), (touch,)), 0, (1,), (1,), False, None))
    },
    "of a storage": lambda touch: {
        "a": Call(
            REBUILD,
            (
                Reference(("storage", Call(Name("os", "system"), (touch,)), "0", "cpu", 1)),
                *(0, (1,), (1,), False, None),
            ),
        )
    },
    "by attributes": lambda touch: {
        "a": Call(Name("builtins", "getattr"), (Name("os", "system"), "__call__")),
        "b": touch,
    },
    "of an attribute's attribute": lambda touch: {
        "a": Call(Name("torch._utils", "_rebuild_tensor_v2.__globals__"), (touch,))
    },
    "a module": lambda touch: {"a": Call(Name("torch.nn.modules.linear", "Linear"), (touch,))},
}


@pytest.mark.parametrize("what", ATTEMPTS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_function_is_named_and_never_run(what, legacy, file, tmp_path):
    data = pickled(ATTEMPTS[what](f"touch {tmp_path / 'ran'}"))
    if legacy:
        whole = write_legacy(file, {}).read_bytes()
        file.write_bytes(whole[: whole.index(b"ccollections") - 2] + data + pickled([]))
    else:
        write_zip(file, ONE, data=data)
    line = refusal(file)
    assert "its pickle names " in line
    assert "nothing was run" in line
    assert not (tmp_path / "ran").exists()


STACK_GLOBAL = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (STACK_GLOBAL, "names os.system"),
        (b"\x80\x02cos\nsystem\n\x81.", "names os.system"),
        (b"(S'true'\nios\nsystem\n.", "operation INST"),
        (b"\x80\x02\x82\x01.", "operation EXT1"),
        (b"\x80\x02]\x81.", "operation NEWOBJ"),
        (b"\x80\x02X\x01\x00\x00\x00a)R.", "calls what is no function"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls what is no function"),
        (b"\x80\x02]}b.", "sets the state of what is no dict"),
        (b"\x80\x02}(K\x01", "damaged"),
        (b"\x80\x02e.", "damaged"),
        (b"\x80\x02h\x07.", "damaged"),
        (b"\x80\x02}]K\x01s.", "damaged"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "damaged"),
        (b"", "damaged"),
        (b"\x80\x02" + b"(" * 10 + b".", "damaged"),
        (pickled({"a": Reference(("module", "b"))}), "a whole model"),
        (pickled({"a": Call(Name("torch._utils", "_rebuild_qtensor"), ())}), "_rebuild_qtensor"),
        (pickled({"a": Call(Name("torch._utils", "_rebuild_sparse_tensor"), ())}), "_sparse_"),
        (pickled([1, 2]), "holds a list"),
        (pickled({"epoch": 3}), "holds no tensors but 'epoch'"),
        (pickled({}), "holds no tensors but nothing"),
    ],
)
def test_other_pickles_are_refused(data, said, file):
    write_zip(file, ONE, data=data or b"\x80")
    assert said in refusal(file)


def test_a_dict_that_holds_itself_comes_to_an_end(file):
    itself = b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."
    assert "no tensors" in refusal(write_zip(file, ONE, data=itself))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"shape": (2, 4)}, "leaves its storage of 6 numbers"),
        ({"offset": 1}, "leaves its storage"),
        ({"offset": -1}, "without a storage, a shape or strides"),
        ({"strides": (-3, 1)}, "without a storage, a shape or strides"),
        ({"strides": (3,)}, "without a storage, a shape or strides"),
        ({"strides": (10**15, 1)}, "leaves its storage"),
        ({"shape": (10**6, 10**6), "strides": (0, 0)}, "leaves its storage"),
        ({"count": 10**12, "shape": (10**12,), "strides": (1,)}, "numbers are missing"),
        ({"count": -1}, "is no storage"),
        ({"storage": "QInt8Storage"}, "names torch.QInt8Storage"),
        ({"storage": "float32"}, "is no storage"),
        ({"order": b"big"}, "not little-endian"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    ],
)
def test_tensors_that_leave_their_storage_are_refused(changed, said, file):
    assert said in refusal(write_zip(file, ONE, **changed))


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_safetensors])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.98])
def test_a_file_that_is_cut_off_is_refused(write, share, file):
    whole = write(file, some_tensors()).read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    refusal(file)


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_safetensors])
def test_a_file_with_damage_anywhere_is_read_or_refused_in_a_line(write, file):
    """Bytes exchanged, lost or put in, as random as they come; nothing else is raised."""
    random = np.random.default_rng(0)
    whole, lines = write(file, some_tensors()).read_bytes(), []
    for _ in range(150):
        damaged = bytearray(whole)
        for place in random.integers(len(whole) - 8, size=random.integers(1, 4)):
            length = int(random.integers(9))
            damaged[place : place + length] = random.bytes(random.choice([length, 1, 9]))
        file.write_bytes(bytes(damaged))
        try:
            read_state_dict(file)
        except ValueError as error:
            lines.append(str(error))
    assert len(lines) > 50
    assert all(line.startswith(str(file)) and "\n" not in line for line in lines)


def test_a_flipped_bit_of_a_tensor_is_found(file):
    whole = bytearray(write_zip(file, ONE).read_bytes())
    whole[whole.index(ONE["a"].tobytes()) + 5] ^= 1
    file.write_bytes(bytes(whole))
    assert "damaged or cut off" in refusal(file)


def test_a_missing_storage_is_named(file):
    write_zip(file, {}, data=pickled({"a": tensor("0", ONE["a"])}))
    assert "archive/data/0 is missing" in refusal(file)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dtype": "F8_E4M3"}, "a has numbers of kind F8_E4M3"),
        ({"shape": [2, 4]}, "a of shape (2, 4) lies in bytes 0 to 24"),
        ({"shape": [-2, -3]}, "no number"),
        ({"data_offsets": [24, 48]}, "lies in bytes 24 to 48"),
        ({"data_offsets": [0]}, "damaged"),
        ({"shape": "x"}, "damaged"),
    ],
)
def test_damaged_tables_of_safetensors_are_refused(changed, said, file):
    assert said in refusal(write_safetensors(file, ONE, **changed))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither a file of torch.save nor a safetensors file"),
        (b"\x89HDF\r\n\x1a\n0000", "neither"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "its table is longer than the file"),
        (b"\x02\0\0\0\0\0\0\0{}", "holds no tensors"),
        (b"\x04\0\0\0\0\0\0\0{[}]", "damaged"),
        (b'\x0f\0\0\0\0\0\0\0{"a":{},"a":{}}', "a name is there twice"),
    ],
)
def test_other_files_are_refused(content, said, file):
    file.write_bytes(content)
    assert said in refusal(file)


def test_other_archives_are_refused(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes.txt", "")
    assert "without data.pkl" in refusal(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("program/constants.pkl", "")
    assert "TorchScript" in refusal(file)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected a state dict"):
        read_state_dict(tmp_path / "nothing.pt")
    assert os.listdir(tmp_path) == []
