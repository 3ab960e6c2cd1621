"""Several processes, on one host or many: how they find each other, agree and take turns.

`join` comes before any other JAX call. Alone, every function here does the plain thing.
"""

import functools
import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxmoe.parallel.rendezvous import meet

Result = TypeVar("Result")

_TIMEOUT = 300  # seconds that processes wait for each other at the start
_LONGEST = 7 * 24 * 3600  # seconds at a barrier: one may prepare data meanwhile, or compile
_barriers = itertools.count()  # all processes come to the same ones, in the same order
_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Variables by which a cluster says how many processes of this command it has started.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def expected(variables: Mapping[str, str]) -> bool:
    """Returns whether the environment says that this is one of several processes.

    Raises:
      ValueError: it says so in part.
    """
    given = [name for name in _EXPLICIT if variables.get(name)]
    if given:
        missing = [name for name in _EXPLICIT if name not in given]
        if missing:
            raise ValueError(f"{given[0]} is set; expected {' and '.join(missing)} too")
        return _number(variables, "JAX_NUM_PROCESSES") > 1
    workers = [name for name in variables.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]
    return len(workers) > 1 or any(
        _number(variables, name) > 1 for name in _COUNTS if name in variables
    )


def join(variables: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes, if the environment says that there are any.

    Args:
      variables: `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and
        `JAX_PROCESS_ID`; or those of an `srun` step, of Open MPI or of a TPU slice.
        `JAXMOE_START_TIMEOUT` is how many seconds they wait for each other (300).

    Raises:
      ValueError: variables that make no sense, or a process that did not come in time; where the
        variables are JAX's own the line names it.
    """
    if not expected(variables):
        return
    import jax

    seconds = _number(variables, "JAXMOE_START_TIMEOUT", _TIMEOUT)
    explicit: dict[str, Any] = {}
    if variables.get(_EXPLICIT[0]):
        count, own = (_number(variables, name) for name in _EXPLICIT[1:])
        if not 0 <= own < count:
            raise ValueError(f"JAX_PROCESS_ID: {own}; expected 0 to {count - 1}, of {count}")
        try:
            meet(variables[_EXPLICIT[0]], count, own, seconds)
        except OSError as error:  # TimeoutError and ConnectionError are of its kind
            raise ValueError(f"processes: {error}") from None
        explicit = {
            "coordinator_address": variables[_EXPLICIT[0]],
            "num_processes": count,
            "process_id": own,
            "cluster_detection_method": "deactivate",
        }
    if variables.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX aborts with a stack trace where somebody is missing: this comes first, in words.
    alarm = threading.Timer(seconds, _give_up, [seconds])
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(initialization_timeout=seconds + 60, **explicit)
    finally:
        alarm.cancel()


def _give_up(seconds: int) -> None:
    print(
        f"jaxmoe: processes: not all found each other within {seconds} s (JAXMOE_START_TIMEOUT)",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


def is_first() -> bool:
    """Returns whether this process writes files and speaks."""
    import jax

    return jax.process_index() == 0


def wait_for_all() -> None:
    """Returns when every process is here; raises an error minutes after one has died.

    A collective would not wait: on CPUs it fails where a process comes 30 seconds later.
    """
    import jax

    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost

    barrier = multihost.get_barrier_sync_fn()
    number, failures = next(_barriers), []

    def wait():
        try:
            barrier(key=f"jaxmoe {number}", timeout_ms=_LONGEST * 1000)
        except Exception as error:
            failures.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(1)  # signals are heard in between
    if failures:
        raise failures[0]


def compile_together(program: Callable) -> Callable:
    """Returns a jitted program that no process runs before all have compiled it.

    All processes call it with the same shapes, in the same order.
    """
    import jax

    if jax.process_count() == 1:
        return program
    compiled: dict[Any, Callable] = {}

    @functools.wraps(program)
    def run(*args):
        leaves, structure = jax.tree.flatten(args)
        key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in compiled:
            compiled[key] = program.lower(*args).compile()
            wait_for_all()
        return compiled[key](*args)

    run.lower = program.lower
    return run


def gather(text: str) -> list[str]:
    """Returns the texts of all processes, in their order."""
    return [raw.decode() for raw in _gather(text.encode())]


def broadcast(raw: bytes) -> bytes:
    """Returns process 0's bytes."""
    return _gather(raw if is_first() else b"")[0]


def _gather(raw: bytes) -> list[bytes]:
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [raw]
    wait_for_all()
    raw = np.frombuffer(raw, np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(raw)))
    padded = np.zeros(max(1, int(np.max(lengths))), np.uint8)
    padded[: len(raw)] = raw
    rows = multihost_utils.process_allgather(padded)
    return [bytes(row[:n]) for row, n in zip(rows, lengths, strict=True)]


def agree(what: str, values: Mapping[str, Any]) -> None:
    """Compares what processes were given.

    Args:
      what: of what kind the values are, such as `"configuration"`.
      values: by name, as JSON holds them.

    Raises:
      ValueError: a process has others than process 0; the line names it and the first of them.
    """
    texts = gather(json.dumps(values, sort_keys=True, default=str))
    own = json.loads(texts[0])
    for process, text in enumerate(texts):
        other = json.loads(text)
        for name in sorted(own.keys() | other.keys()):
            if own.get(name) != other.get(name):
                raise ValueError(
                    f"processes: {what} differs: {name} is {own.get(name)} on process 0 and "
                    f"{other.get(name)} on process {process}"
                )


def first(function: Callable[[], Result]) -> Result:
    """Returns what the function returns, run by process 0 and then by the others.

    What it prepares and keeps on a shared disk is prepared once.

    Raises:
      ValueError: process 0 raised an error; on all others.
    """
    import jax

    if jax.process_count() == 1:
        return function()
    failure, result = None, None
    if is_first():
        try:
            result = function()
        except Exception as error:  # the others must not wait for what will not come
            failure = error
    said = gather("" if failure is None else str(failure) or type(failure).__name__)[0]
    if failure is not None:
        raise failure
    if said:
        raise ValueError(f"process 0: {said}")
    return result if is_first() else function()


def _number(variables: Mapping[str, str], name: str, default: int = 1) -> int:
    value = variables.get(name, str(default))
    if not value.strip().isdecimal():
        raise ValueError(f"{name}: {value!r}; expected a number")
    return int(value)
