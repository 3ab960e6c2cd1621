"""Batches made by worker processes, which leave Ctrl-C to the process that started them."""

import signal
from multiprocessing import resource_tracker
from typing import Any

import grain


class WorkerBatches(grain.IterDataset):
    """The batches of another dataset, whose worker processes never see Ctrl-C.

    A terminal sends it to all of them; each would answer with a traceback of its own. They end with
    the process that started them.
    """

    def __init__(self, parent: grain.IterDataset):
        super().__init__(parent)

    def __iter__(self) -> grain.DatasetIterator:
        """From the first batch on."""
        return _Iterator(iter(self._parent))


class _Iterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator):
        super().__init__(parent)
        # It starts with the first process otherwise, and unblocks what is blocked then.
        resource_tracker.ensure_running()

    def __next__(self) -> Any:
        # A process starts when a batch is first wanted of it, from this thread or one that starts
        # here, and inherits what is blocked. For this process itself Ctrl-C only waits for a batch.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return next(self._parent)
        except RuntimeError as error:
            if f"exit code -{signal.SIGKILL:d}" in str(error):
                raise MemoryError(
                    "the system ended a worker process, as it does where memory is short; fewer "
                    "data.workers take less"
                ) from error
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def get_state(self) -> Any:
        return self._parent.get_state()

    def set_state(self, state: Any) -> None:
        self._parent.set_state(state)
