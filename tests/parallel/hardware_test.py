"""Names of accelerators: which there are, how many devices each has, what is said of others."""

import pytest

from jaxmoe.parallel.hardware import CHIPS, SLICES, find_hardware


@pytest.mark.parametrize(
    ("name", "devices", "topology"),
    [
        ("v5e-16", 16, "v5e:4x4"),
        ("v6e-8", 8, "v6e:2x4"),
        ("v5p-128", 64, "v5p:4x4x4"),
        ("V5E-1", 1, "v5e:1x1"),
        ("h100-8", 8, None),
        ("a100-64", 64, None),
    ],
)
def test_a_name_says_how_many_devices_there_are(name, devices, topology):
    found = find_hardware(name)
    assert (found.devices, found.topology) == (devices, topology)


def test_a_slice_of_v5p_is_named_after_its_cores():
    assert "64 chips, 128 TensorCores" in find_hardware("v5p-128").sentence


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v5e-17", "one of 1, 4, 8, 16, 32"),
        ("v5p-4", "8, 16, 32, 64, 128"),
        ("h100-12", "a multiple of 8"),
        ("h100-0", "h100-1, h100-2, h100-4"),
        ("v5e", "one of 1, 4, 8"),
        ("v5f-16", "did you mean v5"),
        ("16", "such as v5e-16"),
    ],
)
def test_devices_that_there_are_none_of_are_one_line(name, expected):
    with pytest.raises(ValueError, match="--devices: ") as raised:
        find_hardware(name)
    assert expected in str(raised.value)


def test_a_slices_topology_has_as_many_chips_as_its_name_says():
    for kind, slices in SLICES.items():
        for number in slices:
            found = find_hardware(f"{kind}-{number}")
            chips = 1
            for side in found.topology.partition(":")[2].split("x"):
                chips *= int(side)
            assert chips == found.devices == number // CHIPS[kind].cores
