"""Runs the jobs of a study, each in a process of its own, several at once."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

Say = Callable[[str], None]
_LOOK = 0.5  # seconds between looks at what runs


class Job:
    """A command of this package that runs in a process of its own.

    Attributes:
      name: of what it does.
      needs: names of jobs that have to be met before it (`run_all`).
      after: names of jobs that have to be over before it, well or not.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: pathlib.Path,
        needs: Sequence[str] = (),
        after: Sequence[str] = (),
    ):
        self.name, self.needs, self.after = name, tuple(needs), tuple(after)
        self._arguments, self._log = list(arguments), log
        self._process: subprocess.Popen | None = None

    def start(self, cores: set[int] | None) -> None:
        """Starts it, on these cores alone."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "jaxmoe", *self._arguments]
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        if cores is not None:
            # Before it has imported JAX, whose threads are as many as it finds cores.
            os.sched_setaffinity(self._process.pid, cores)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def complaint(self) -> str:
        """The last line that it wrote, and where the others are."""
        lines = self._log.read_text("utf-8", errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} ({self._log})"

    def stop(self) -> None:
        """Tells it to save and end."""
        self._process.terminate()

    def wait(self) -> None:
        """Waits until it has ended."""
        self._process.wait()


def run_all(
    jobs: Mapping[str, Job],
    at_once: int,
    *,
    done: Callable[[Job], None],
    is_met: Callable[[str], bool],
    say: Say,
) -> list[str]:
    """Runs jobs, so many at once, in the order of their turns; returns those that failed.

    A job that needs what failed and is not met is not run, and counts as failed. Jobs that run at
    once share the cores out.

    Args:
      jobs: by name.
      at_once: how many.
      done: called with each that ended well.
      is_met: says if what a job is needed for is there, though the job may still run: a start that
        is trained, and not judged yet.
      say: prints a line.

    Raises:
      KeyboardInterrupt: Ctrl-C or SIGTERM; what ran has saved.
    """
    waiting, running, failed = dict(jobs), {}, []
    places = _shared_cores(at_once)

    def is_ready(job: Job) -> bool:
        busy = {*waiting, *(other.name for other in running.values())} - {job.name}
        return not busy & set(job.after) and all(n not in busy or is_met(n) for n in job.needs)

    with _sigterm_as_interrupt():
        try:
            while waiting or running:
                for place in range(at_once):
                    ready = (job for job in waiting.values() if is_ready(job))
                    if place not in running and (job := next(ready, None)) is not None:
                        del waiting[job.name]
                        job.start(places[place])
                        running[place] = job
                for place, job in list(running.items()):
                    if job.code is None:
                        continue
                    del running[place]
                    if job.code == 0:
                        done(job)
                        continue
                    failed.append(job.name)
                    say(f"{job.name}: failed: {job.complaint}")
                    if not is_met(job.name):
                        failed += _drop_behind(waiting, job.name, say)
                time.sleep(_LOOK)
        except BaseException:
            _stop(running.values())
            raise
    return failed


def _stop(jobs: Sequence[Job]) -> None:
    """Ends all of them, whatever comes between."""
    jobs = list(jobs)
    for job in jobs:
        job.stop()
    for job in jobs:
        try:
            job.wait()
        except KeyboardInterrupt:  # a second Ctrl-C: they were told, and save by themselves
            continue


def _drop_behind(waiting: dict[str, Job], name: str, say: Say) -> list[str]:
    """Takes out the jobs that need one that failed, and theirs; returns their names."""
    dropped = []
    for other in [job.name for job in waiting.values() if name in job.needs]:
        if waiting.pop(other, None) is not None:
            say(f"{other}: not run: what it needs has failed")
            dropped += [other, *_drop_behind(waiting, other, say)]
    return dropped


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Makes SIGTERM what Ctrl-C is."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shared_cores(parts: int) -> list[set[int] | None]:
    """Returns the cores of each part; None for all, where there is one part or cannot be more."""
    if parts == 1 or not hasattr(os, "sched_setaffinity"):
        return [None] * parts
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < parts:
        return [None] * parts
    return [set(cores[part::parts]) for part in range(parts)]
