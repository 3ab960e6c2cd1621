"""Accelerators by name, and the numbers of them that there are: `v5e-16`, `v5p-128`, `h100-8`.

Figures are the vendors' published ones. Imports no JAX.
"""

import re
from typing import NamedTuple

from jaxmoe.spelling import did_you_mean

GB, GIB = 1e9, 2**30


class Chip(NamedTuple):
    """What one device of a kind can do; a device is what JAX calls one, a chip of all these.

    Attributes:
      title: its name in words.
      flops: peak FLOP/s of products by what they are computed from, as `peak` reads it.
      memory: bytes of HBM that a program may use.
      bandwidth: bytes/s of the HBM.
      link: bytes/s that a device can send to its neighbours, over all links together.
      network: bytes/s that a device can send beyond them, over the data centre's network.
      together: devices that `link` joins at most: of a slice, or of a node.
      cores: what the vendor counts in a name; v5p-128 has 64 chips of two TensorCores.
    """

    title: str
    flops: dict[str, float]
    memory: float
    bandwidth: float
    link: float
    network: float
    together: int
    cores: int = 1


def _tpu(bfloat16: float) -> dict[str, float]:
    # A TPU multiplies float32 in one pass of bfloat16, or, where it is asked, in three or six.
    return {
        "bfloat16": bfloat16,
        "float32": bfloat16,
        "float32 high": bfloat16 / 3,
        "float32 highest": bfloat16 / 6,
    }


def _gpu(bfloat16: float, tensorfloat32: float, float32: float) -> dict[str, float]:
    return {
        "bfloat16": bfloat16,
        "float32": tensorfloat32,
        "float32 high": tensorfloat32,
        "float32 highest": float32,
    }


# TPUs: the pages v5e, v5p and v6e of cloud.google.com/tpu/docs. `memory` is what their compiler
# says that a program may use; `link` is half of the published figure, which is of both directions.
# GPUs: the data sheets of A100 80 GB SXM, H100 SXM and H200 SXM, products without sparsity; a
# node's network is one 200 or 400 Gb/s card for each GPU.
CHIPS: dict[str, Chip] = {
    "v5e": Chip("TPU v5e", _tpu(197e12), 15.75 * GIB, 819 * GB, 200 * GB, 3.125 * GB, 256),
    "v5p": Chip("TPU v5p", _tpu(459e12), 95 * GIB, 2765 * GB, 600 * GB, 6.25 * GB, 6144, 2),
    "v6e": Chip("TPU v6e", _tpu(918e12), 31.25 * GIB, 1600 * GB, 400 * GB, 12.5 * GB, 256),
    "a100": Chip(
        "A100 80 GB", _gpu(312e12, 156e12, 19.5e12), 80 * GB, 2039 * GB, 300 * GB, 25 * GB, 8
    ),
    "h100": Chip("H100 SXM", _gpu(989e12, 494e12, 67e12), 80 * GB, 3350 * GB, 450 * GB, 50 * GB, 8),
    "h200": Chip(
        "H200 SXM", _gpu(989e12, 494e12, 67e12), 141 * GB, 4800 * GB, 450 * GB, 50 * GB, 8
    ),
}

_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
# By the number in a slice's name: of v5p that of TensorCores, two for each chip.
SLICES: dict[str, dict[int, str]] = {
    "v5e": _FLAT,
    "v6e": _FLAT,
    "v5p": {
        8: "2x2x1",
        16: "2x2x2",
        32: "2x2x4",
        64: "2x4x4",
        128: "4x4x4",
        256: "4x4x8",
        512: "4x8x8",
        1024: "8x8x8",
        2048: "8x8x16",
        4096: "8x16x16",
        8192: "16x16x16",
        12288: "16x16x24",
    },
}


class Hardware(NamedTuple):
    """A slice, or nodes of GPUs.

    Attributes:
      name: as on the command line.
      kind: the key in `CHIPS`.
      chip: what one device can do.
      devices: how many of them, as JAX counts them.
      topology: of a slice, as libtpu names it; None where there is none.
    """

    name: str
    kind: str
    chip: Chip
    devices: int
    topology: str | None

    @property
    def sentence(self) -> str:
        """What it is, in words."""
        chips = f"{self.devices} chip" + ("s" if self.devices > 1 else "")
        if self.topology is None:
            nodes = -(-self.devices // self.chip.together)
            return f"{self.devices} × {self.chip.title} in {nodes} node" + "s" * (nodes > 1)
        cores = self.devices * self.chip.cores
        of = (
            "" if cores == self.devices else f", {cores} TensorCores: a JAX device is a chip of two"
        )
        return f"{self.chip.title} slice {self.topology}: {chips}{of}"


def find_hardware(name: str) -> Hardware:
    """Returns the devices that a name such as `v5e-16` or `h100-8` stands for.

    Raises:
      ValueError: there are none of that name; one line with what is accepted.
    """
    match = re.fullmatch(r"([a-z]+\d+[a-z]*)-(\d+)", name.lower())
    kind = match[1] if match else name.lower().partition("-")[0]
    if kind not in CHIPS:
        raise ValueError(
            f"--devices: {name!r} is not accepted{did_you_mean(kind, CHIPS)} Expected KIND-NUMBER "
            f"such as v5e-16, with a kind of {', '.join(CHIPS)}"
        )
    number = int(match[2]) if match else 0
    chip, slices = CHIPS[kind], SLICES.get(kind)
    if slices is None:
        if number not in (1, 2, 4) and (number < 1 or number % chip.together):
            raise ValueError(
                f"--devices: {name!r} is not accepted; expected {kind}-1, {kind}-2, {kind}-4 or a "
                f"multiple of {chip.together}, whole nodes"
            )
        return Hardware(f"{kind}-{number}", kind, chip, number, None)
    if number not in slices:
        what = ", a number of TensorCores" if chip.cores > 1 else ""
        raise ValueError(
            f"--devices: {name!r} is no slice; expected {kind}- and one of "
            f"{', '.join(map(str, slices))}{what}"
        )
    topology = f"{kind}:{slices[number]}"
    return Hardware(f"{kind}-{number}", kind, chip, number // chip.cores, topology)
