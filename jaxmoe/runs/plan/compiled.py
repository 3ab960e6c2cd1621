"""What a compiler makes of a program: seconds, memory of a device, and collectives.

For a TPU slice it is libtpu, which needs no TPU; without it, XLA for the CPU devices of this
process.
"""

import collections
import contextlib
import dataclasses
import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator

import jax

from jaxmoe.parallel.hardware import Hardware
from jaxmoe.runs.plan.program import Placing, Program

# XLA's effort to make a program fast, as JAX_OPTIMIZATION_LEVEL has it; without it the default.
LEVELS = {"default": 0, "O0": 9, "O1": 19, "O2": 29, "O3": 39}
QUICKEST = "O0"
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$", re.MULTILINE)
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|called_computations|branch_computations|"
    r"true_computation|false_computation|async_computation)=\{?((?:%?[\w.\-]+(?:, )?)+)"
)
_LOOP = re.compile(r"= .* while\(.*?body=%?([\w.\-]+)")
_COLLECTIVE = re.compile(
    r"= (?P<shapes>\(.*?\)|\S+) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute|collective-broadcast)(?P<start>-start)?\("
)
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]+)\})")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
      arguments: state and batch.
      temporaries: what is held while the program runs, and in no array that goes in or comes out.
      output: results; a training state takes the place of the old one.
      total: of all three, results that take an argument's place counted once.
    """

    arguments: int
    temporaries: int
    output: int
    total: int


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind.

    Attributes:
      kind: as XLA calls it.
      in_loops: whether they are inside of loops, such as an attack's.
      bytes: of the arrays of each that the program has, those of a loop's body once.
    """

    kind: str
    in_loops: bool
    bytes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What was compiled, and what the compiler says of it.

    Attributes:
      target: for what.
      batch: examples of one device.
      level: of `LEVELS`.
      seconds: that it took to compile, tracing left out.
      hlo_lines: of the program when it is optimised.
      loops: in it.
      memory: of one device; None where the program does not fit and the compiler gave up.
      refusal: what the compiler said then.
      collectives: in it.
    """

    target: str
    batch: int
    level: str
    seconds: float
    hlo_lines: int = 0
    loops: int = 0
    memory: Memory | None = None
    refusal: str | None = None
    collectives: tuple[Collective, ...] = ()


def has_libtpu() -> bool:
    """Returns whether TPU programs can be compiled here."""
    return importlib.util.find_spec("libtpu") is not None


def slice_devices(hardware: Hardware) -> list[jax.Device]:
    """Returns the devices of a TPU slice, for which libtpu compiles; none of them is here."""
    from jax.experimental import topologies

    # A machine that is no TPU's has no metadata to ask for; and a lock keeps two processes off one
    # TPU, where this one compiles alone and touches none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options = {"chips_per_host_bounds": [1, 1, 1]} if hardware.devices == 1 else {}
    with _quiet():
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=hardware.topology, **options
        )
    return list(topology.devices)


def compile_program(
    program: Program, hardware: Hardware, batch: int, level: str = QUICKEST
) -> Compiled:
    """Compiles a program for a TPU slice; where libtpu is not installed, for CPUs that are here.

    Args:
      program: what is compiled.
      hardware: the slice.
      batch: examples of one device.
      level: of `LEVELS`. Training compiles with the default, or with what JAX_OPTIMIZATION_LEVEL
        says; the default takes several times as long as O0.

    Raises:
      ValueError: without libtpu, experts that do not split over the CPU devices that are here.
    """
    if has_libtpu():
        devices = slice_devices(hardware)
        target = f"{hardware.chip.title} slice {hardware.topology} (libtpu)"
    else:
        devices, placing = jax.devices("cpu"), program.placing
        if len(devices) % placing.expert:
            raise ValueError(
                f"parallel.expert: {placing.expert} does not divide the {len(devices)} CPU devices "
                "that are here, for which programs compile without libtpu; expected --no-compile, "
                "or the extra jaxmoe[plan]"
            )
        here = Placing(len(devices), placing.expert, placing.fsdp)
        program = dataclasses.replace(program, placing=here)
        target = f"{len(devices)} CPU device{'s' * (len(devices) > 1)} of this machine"
    lowered = program.lower(devices, batch)
    began = time.monotonic()
    try:
        with _quiet():
            compiled = lowered.compile({"optimization_level": LEVELS[level]})
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = " ".join(str(error).split())
        return Compiled(target, batch, level, time.monotonic() - began, refusal=said[:300])
    seconds = time.monotonic() - began
    found, text = compiled.memory_analysis(), compiled.as_text()
    memory = Memory(
        found.argument_size_in_bytes,
        found.temp_size_in_bytes,
        found.output_size_in_bytes,
        found.argument_size_in_bytes
        + found.temp_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes,
    )
    return Compiled(
        target,
        batch,
        level,
        seconds,
        len(text.splitlines()),
        len(_LOOP.findall(text)),
        memory,
        None,
        collectives_in(text),
    )


def collectives_in(text: str) -> tuple[Collective, ...]:
    """Returns the collectives of a compiled program, from its text."""
    bodies = dict(_computations(text))
    looped: set[str] = set()
    waiting = [name for body in bodies.values() for name in _LOOP.findall(body)]
    while waiting:
        name = waiting.pop()
        if name not in looped and name in bodies:
            looped.add(name)
            waiting += _called_by(bodies[name])
    found: dict[tuple[str, bool], list[int]] = collections.defaultdict(list)
    for name, body in bodies.items():
        for line in body.splitlines():
            match = _COLLECTIVE.search(line)
            if match:
                found[match["kind"], name in looped].append(_payload(match, line))
    return tuple(Collective(*which, tuple(sizes)) for which, sizes in sorted(found.items()))


def _computations(text: str) -> Iterator[tuple[str, str]]:
    heads = list(_COMPUTATION.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        yield head[2], text[head.end() : end]


def _called_by(body: str) -> list[str]:
    return [
        name.strip().lstrip("%") for names in _CALLED.findall(body) for name in names.split(",")
    ]


def _payload(match: re.Match, line: str) -> int:
    """The bytes of the result, or of the operand where that is larger."""
    sizes = [_bytes(*shape) for shape in _SHAPE.findall(match["shapes"])]
    groups = _GROUPS.search(line)
    group = 1
    if groups:
        group = int(groups[1]) if groups[1] else len(groups[2].split(","))
    if match["start"] and match["kind"] == "all-gather":
        return sum(sizes) * group // (group + 1)  # its tuple has the operands too
    return sum(sizes) * (group if match["kind"] == "reduce-scatter" else 1)


def _bytes(dtype: str, dimensions: str) -> int:
    digits = re.search(r"\d+", dtype)
    size = max(int(digits[0]) // 8, 1) if digits else 1
    for n in filter(None, dimensions.split(",")):
        size *= int(n)
    return size


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what libtpu writes to standard error off it: that this machine has no TPU."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as unread:
        os.dup2(unread.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
