"""Starts any jaxmoe command on this machine: in one process, or in several that train together.

python launch/local.py -- train configs/video/ut_interaction_at_m.py --data.directory DIR
python launch/local.py --virtual-devices 4 -- train configs/video/quickstart.py
python launch/local.py --processes 2 --devices-per-process 2 -- train configs/video/quickstart.py
python launch/local.py --processes 8 --gpus -- train configs/video/ucf101_j_tlat.py

One process has all devices that JAX sees. Virtual devices share the CPU's cores: they show that a
run works on several devices and in several processes, not how fast it is there. Several processes
share the cores out. Process 0 writes to the terminal; lines of the others have their number before
them. Ctrl-C and SIGTERM reach them all.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import IO

PROGRAM = (sys.executable, "-m", "jaxmoe")
FLAG = "--xla_force_host_platform_device_count"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PREEMPTED = 75  # EX_TEMPFAIL: saved, and the same command goes on
MOMENT = 10.0  # seconds for the others to see that one is gone, and to end by themselves
SAVING = 120.0  # the same after one that was preempted: the others may still save


def main(argv: list[str] | None = None) -> int:
    """Runs the command in child processes, which alone import JAX; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    command = options.command[options.command[:1] == ["--"] :]
    if not command:
        parser.error("no command; expected -- and a jaxmoe command, such as -- train CONFIG.py")
    if wrong := _contradiction(options):
        parser.error(wrong)
    try:
        children = environments(
            dict(os.environ),
            processes=options.processes,
            devices=options.virtual_devices or options.devices_per_process,
            gpus=visible_gpus(dict(os.environ)) if options.gpus else None,
        )
    except ValueError as error:
        parser.error(str(error))
    return supervise([*PROGRAM, *command], children)


def environments(
    variables: dict[str, str],
    *,
    processes: int | None = None,
    devices: int | None = None,
    gpus: Sequence[str] | None = None,
) -> list[dict[str, str]]:
    """Returns the environment of each process.

    Args:
      variables: the environment of this process.
      processes: how many train together; None is one that knows of no others.
      devices: virtual CPU devices of a process; None is one of each of several processes.
      gpus: the GPUs to share out evenly, as CUDA names them; None is none.

    Raises:
      ValueError: the GPUs cannot be shared out evenly.
    """
    if processes is None:
        return [variables if devices is None else on_cpu(variables, devices)]
    if gpus is not None and (not gpus or len(gpus) % processes):
        raise ValueError(
            f"--processes: {processes} cannot share {len(gpus)} visible GPUs evenly; expected a "
            "number that divides them"
        )
    address = f"127.0.0.1:{free_port()}"
    shared = variables | {
        "JAX_COORDINATOR_ADDRESS": address,
        # Without it the coordinator listens on all of this machine's networks.
        "JAX_COORDINATOR_BIND_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(processes),
    }
    if gpus is None:
        shared = on_cpu(shared, devices or 1) | {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    children = []
    for index in range(processes):
        child = shared | {"JAX_PROCESS_ID": str(index)}
        if gpus is not None:
            count = len(gpus) // processes
            child["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index * count : (index + 1) * count])
            # Inside of a batch job JAX would take one of them alone.
            child["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(count)))
        children.append(child)
    return children


def on_cpu(variables: dict[str, str], devices: int) -> dict[str, str]:
    """Returns `variables` with JAX told to make virtual CPU devices before it starts."""
    others = [flag for flag in variables.get("XLA_FLAGS", "").split() if FLAG not in flag]
    flags = " ".join([*others, f"{FLAG}={devices}"])
    return variables | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def visible_gpus(variables: dict[str, str]) -> list[str]:
    """Returns the GPUs that CUDA_VISIBLE_DEVICES names, or all that the driver lists."""
    if "CUDA_VISIBLE_DEVICES" in variables:
        return [gpu for gpu in variables["CUDA_VISIBLE_DEVICES"].split(",") if gpu.strip()]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return listed.split()


def free_port() -> int:
    """Returns a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def supervise(
    command: Sequence[str], environments: Sequence[dict[str, str]], moment: float = MOMENT
) -> int:
    """Runs the command once in each environment, and returns when all have ended.

    SIGINT, SIGTERM and SIGHUP go to all. After the first that fails, the others get a moment, then
    SIGTERM, and after another moment SIGKILL.

    Args:
      command: a program and its arguments.
      environments: the environment of each process.
      moment: seconds.

    Returns:
      The exit code of the process that failed first, 128 + n of one that signal n ended; else 0.
    """
    children: list[subprocess.Popen] = []
    readers: list[threading.Thread] = []

    def forward(number: int, frame: FrameType | None) -> None:
        del frame
        _send(children, number)

    before = {number: signal.getsignal(number) for number in FORWARDED}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, forward)
    try:
        for index, environment in enumerate(environments):
            child = _start(command, environment, index)
            children.append(child)
            _share_cores(child, environments, index)
            if child.stdout is not None:
                readers.append(_reader(child.stdout, index))
        code = _wait(children, moment)
        for reader in readers:
            reader.join(timeout=1)  # a worker that outlives its process may keep the pipe open
        return code
    finally:
        _kill(children)
        for number in heeded:
            signal.signal(number, before[number])


def _wait(children: Sequence[subprocess.Popen], moment: float) -> int:
    """Waits for all, and ends those that stay after one has failed; returns the exit code."""
    first, deadline = 0, float("inf")
    remedies = iter((_terminate, _kill))
    while running := [index for index, child in enumerate(children) if child.poll() is None]:
        failed = [index for index, child in enumerate(children) if child.returncode]
        if failed and not first:
            first = _exit_code(children[failed[0]])
            patience = max(SAVING, moment) if first == PREEMPTED else moment
            deadline = time.monotonic() + patience
            _say(f"process {failed[0]} ended with exit code {first}; waiting for {running}")
        if time.monotonic() > deadline:
            next(remedies, _kill)(children)
            _say(f"{running} ran on, and were told to end")
            deadline = time.monotonic() + moment
        time.sleep(0.05)
    return first or next((_exit_code(child) for child in children if child.returncode), 0)


def _share_cores(
    child: subprocess.Popen, environments: Sequence[dict[str, str]], index: int
) -> None:
    """Gives a process its share of the cores, where several compute on them."""
    if environments[index].get("JAX_PLATFORMS") != "cpu" or not hasattr(os, "sched_getaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if 1 < len(environments) <= len(cores):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(child.pid, cores[index :: len(environments)])


def _start(command: Sequence[str], environment: dict[str, str], index: int) -> subprocess.Popen:
    """Starts a process in a group of its own: Ctrl-C reaches it from here alone, and once."""
    output = {} if index == 0 else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, process_group=0, **output
    )


def _reader(lines: IO[bytes], index: int) -> threading.Thread:
    """Starts a thread that writes a process's lines to standard error, its number before each."""

    def prefix() -> None:
        for line in lines:
            text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
            print(f"[{index}] {text}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=prefix, daemon=True)
    thread.start()
    return thread


def _send(children: Sequence[subprocess.Popen], number: int) -> None:
    """Signals the processes alone: their loaders' workers must live until the last save."""
    for child in children:
        child.send_signal(number)


def _terminate(children: Sequence[subprocess.Popen]) -> None:
    _send(children, signal.SIGTERM)


def _kill(children: Sequence[subprocess.Popen]) -> None:
    """Kills those that still run, with their workers."""
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _exit_code(child: subprocess.Popen) -> int:
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _say(text: str) -> None:
    print(f"launch/local.py: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/local.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--virtual-devices", type=int, metavar="N", help="one process with N virtual CPU devices")
    add("--processes", type=int, metavar="N", help="N processes that train together")
    add(
        "--devices-per-process",
        type=int,
        metavar="D",
        help="virtual CPU devices of each of several processes (1)",
    )
    add("--gpus", action="store_true", help="share this machine's visible GPUs among the processes")
    add("command", nargs=argparse.REMAINDER, help="-- and a jaxmoe command with its arguments")
    return parser


def _contradiction(options: argparse.Namespace) -> str | None:
    """Returns what is wrong with the options together; None is nothing."""
    for name in ("virtual_devices", "processes", "devices_per_process"):
        value = getattr(options, name)
        if value is not None and value < 1:
            return f"--{name.replace('_', '-')}: {value} is not at least 1"
    if options.processes is None:
        if options.devices_per_process is not None:
            return "--devices-per-process needs --processes"
        if options.gpus:
            return "--gpus needs --processes; one process has all GPUs by itself"
    elif options.virtual_devices is not None:
        return "--virtual-devices is for one process; expected --devices-per-process"
    if options.gpus and options.devices_per_process is not None:
        return "--gpus and --devices-per-process exclude each other"
    return None


if __name__ == "__main__":
    sys.exit(main())
