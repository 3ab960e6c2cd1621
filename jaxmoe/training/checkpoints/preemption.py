"""SIGTERM: the cluster takes the machine back, and the run saves at its next step."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class PreemptedError(RuntimeError):
    """Training stopped because of SIGTERM, behind a checkpoint of its last step."""


class Preemption:
    """Says at which step to stop. All processes stop at the same one."""

    def __init__(self) -> None:
        self._asked = False

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Catches SIGTERM in the block.

        With several processes JAX's own service catches it; outside of the main thread, where no
        signal arrives, nothing does.
        """
        main = threading.current_thread() is threading.main_thread()
        if not main or jax.process_count() > 1:
            yield
            return

        def ask(signum, frame):
            self._asked = True

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def due(self, step: int) -> bool:
        """Returns whether to stop behind this step; every process has to ask after each."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked
