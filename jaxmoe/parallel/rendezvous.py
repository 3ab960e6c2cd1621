"""Waits until every process is there, before JAX connects them: its own wait ends in an abort.

Process 0 listens at the coordinator's port. Each other process says its number there and hears who
is missing, if anybody is. Then the port is free again, for JAX.
"""

import contextlib
import socket
import time

_ALL_HERE = "all here"
_RETRY = 0.2  # seconds
_REPLY = 10.0  # seconds beyond the deadline that an answer may take


def meet(address: str, count: int, process: int, seconds: float) -> None:
    """Returns when all `count` processes have called this.

    Args:
      address: host:port of process 0.
      count: of processes.
      process: the number of this one.
      seconds: to wait.

    Raises:
      ValueError: no host:port.
      TimeoutError: somebody did not come; the line has the numbers.
      ConnectionError: process 0 cannot be reached.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError(f"JAX_COORDINATOR_ADDRESS: {address!r}; expected HOST:PORT")
    deadline = time.monotonic() + seconds
    if process == 0:
        missing = _wait_for_others(int(port), count, deadline)
    else:
        missing = _report(host.strip("[]"), int(port), process, deadline, seconds)
    if missing:
        words = "process" if "," not in missing else "processes"
        raise TimeoutError(
            f"{words} {missing} of {count} did not come within {seconds:g} s (JAXMOE_START_TIMEOUT)"
        )


def _wait_for_others(port: int, count: int, deadline: float) -> str:
    """Waits for the others' numbers, tells them who is missing, and returns it."""
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("", port), backlog=count))
        here: dict[int, socket.socket] = {}
        while len(here) < count - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError):
                other = opened.enter_context(server.accept()[0])
                other.settimeout(max(_RETRY, deadline - time.monotonic()))
                here[int(other.makefile().readline())] = other
        missing = ", ".join(str(i) for i in range(1, count) if i not in here)
        for other in here.values():
            with contextlib.suppress(OSError):
                other.sendall(f"{missing or _ALL_HERE}\n".encode())
                # Whoever closes first keeps the port busy for a while: that is to be the other.
                other.settimeout(_REPLY)
                other.recv(1)
        return missing


def _report(host: str, port: int, process: int, deadline: float, seconds: float) -> str:
    """Tells process 0 that this one is there, and returns who is missing."""
    while True:
        try:
            with socket.create_connection((host, port), timeout=_RETRY * 10) as connection:
                connection.settimeout(max(0.0, deadline - time.monotonic()) + _REPLY)
                connection.sendall(f"{process}\n".encode())
                said = connection.makefile().readline().strip()
                if said:
                    return "" if said == _ALL_HERE else said
        except OSError as error:
            reason = error
        else:
            reason = ConnectionError("it hung up")
        if time.monotonic() > deadline:
            raise ConnectionError(
                f"process {process} cannot reach process 0 at {host}:{port} within {seconds:g} s "
                f"(JAXMOE_START_TIMEOUT): {reason}"
            )
        time.sleep(_RETRY)
