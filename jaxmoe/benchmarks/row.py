"""A benchmark's result, and the machine that it was measured on."""

import os
import pathlib
import re
from typing import NamedTuple


class Row(NamedTuple):
    """A ratio and its bar: fine where `ratio <= bar`."""

    name: str
    ratio: float  # median over the rounds; both sides of a round run one after the other
    bar: float
    spread: tuple[float, float]  # least and greatest ratio of a round
    detail: str  # what was divided by what
    seconds: dict[str, float]  # median of each side; empty where nothing was timed
    machine: str


def counted(name: str, value: float, bar: float, detail: str) -> Row:
    """The row of a figure that is counted, not timed."""
    return Row(name, float(value), bar, (float(value), float(value)), detail, {}, machine())


def machine() -> str:
    """Platform, device and cores."""
    import jax

    device = jax.devices()[0]
    kind = device.device_kind
    if device.platform == "cpu":
        kind = _cpu_model() or kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{device.platform}, {kind}, {cores} CPU cores, jax {jax.__version__}"


def _cpu_model() -> str | None:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found and found.group(1)
