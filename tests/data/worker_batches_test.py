"""Worker processes and Ctrl-C."""

import grain
import pytest

# First: its lazy imports, while they last, are those of Grain's threads too.
import tensorflow_datasets  # noqa: F401
from absl import flags

from jaxmoe.data.loading.worker_batches import WorkerBatches


def test_workers_do_not_see_ctrl_c_and_a_place_is_kept():
    flags.FLAGS.mark_as_parsed()

    def ask(i):
        import signal  # in the worker

        return i, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    numbers = grain.MapDataset.range(6).map(ask).to_iter_dataset()
    workers = grain.MultiprocessingOptions(num_workers=1)
    iterator = iter(WorkerBatches(numbers.mp_prefetch(workers)))
    try:
        assert [next(iterator) for _ in range(2)] == [(0, True), (1, True)]
        assert not ask(0)[1], "this process sees it"
        place = iterator.get_state()
        assert next(iterator) == (2, True)
        iterator.set_state(place)
        assert [number for number, _ in iterator] == [2, 3, 4, 5]
    finally:
        iterator.close()


def test_a_worker_that_the_system_ended_is_told_as_too_little_memory():
    def end(i):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    numbers = grain.MapDataset.range(6).map(end).to_iter_dataset()
    workers = grain.MultiprocessingOptions(num_workers=1)
    iterator = iter(WorkerBatches(numbers.mp_prefetch(workers)))
    with pytest.raises(MemoryError, match=r"fewer data\.workers take less"):
        next(iterator)
    iterator.close()
