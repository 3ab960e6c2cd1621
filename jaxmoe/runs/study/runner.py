"""Runs the cells of a study, each in a process of its own, several at once."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

Say = Callable[[str], None]
_LOOK = 0.2  # seconds between looks at what runs


class Job:
    """A command of this package that runs in a process of its own.

    Attributes:
      name: of what it does.
      needs: names of the jobs that come before it.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], log: pathlib.Path, needs: Sequence[str]
    ):
        self.name, self.needs = name, tuple(needs)
        self._arguments, self._log = list(arguments), log
        self._process: subprocess.Popen | None = None
        self._began = 0.0

    def start(self, cores: set[int] | None) -> None:
        """Starts it, on these cores alone."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "jaxmoe", *self._arguments]
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        if cores is not None:
            # Before it has imported JAX, whose threads are as many as it finds cores.
            os.sched_setaffinity(self._process.pid, cores)
        self._began = time.monotonic()

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    @property
    def complaint(self) -> str:
        """The last line that it wrote, and where the others are."""
        lines = self._log.read_text("utf-8", errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} ({self._log})"

    def stop(self) -> None:
        """Ends it as Ctrl-C would; what it has saved is kept."""
        self._process.terminate()
        self._process.wait()


def run_all(
    jobs: Mapping[str, Job], at_once: int, done: Callable[[Job], None], say: Say
) -> list[str]:
    """Runs jobs, so many at once, each after those that it needs; returns those that failed.

    What needs a job that failed is not run, and counts as failed. Jobs that run at once share the
    cores out.

    Args:
      jobs: by name, in the order of their turns. A need that is not among them was met before.
      at_once: how many.
      done: called with each that ended well.
      say: prints a line.
    """
    waiting, running, failed = dict(jobs), {}, []
    places = _shared_cores(at_once)
    try:
        while waiting or running:
            for place in range(at_once):
                job = next((j for j in waiting.values() if _is_ready(j, waiting, running)), None)
                if job is not None and place not in running:
                    running[place] = waiting.pop(job.name)
                    job.start(places[place])
            for place, job in list(running.items()):
                if job.code is None:
                    continue
                del running[place]
                if job.code == 0:
                    done(job)
                    continue
                failed.append(job.name)
                say(f"{job.name}: failed: {job.complaint}")
                for name in [n for n, other in waiting.items() if job.name in other.needs]:
                    failed += _drop(waiting, name, say)
            time.sleep(_LOOK)
    except BaseException:
        for job in running.values():
            job.stop()
        raise
    return failed


def _is_ready(job: Job, waiting: Mapping[str, Job], running: Mapping[int, Job]) -> bool:
    busy = {*waiting, *(other.name for other in running.values())}
    return not busy & set(job.needs)


def _drop(waiting: dict[str, Job], name: str, say: Say) -> list[str]:
    """Takes out a job that cannot run, and what needs it; returns their names."""
    if name not in waiting:
        return []
    del waiting[name]
    say(f"{name}: not run: what it needs has failed")
    after = [other for other, job in waiting.items() if name in job.needs]
    return [name, *(gone for other in after for gone in _drop(waiting, other, say))]


def _shared_cores(parts: int) -> list[set[int] | None]:
    """Returns the cores of each part; None for all, where there is one part or cannot be more."""
    if parts == 1 or not hasattr(os, "sched_setaffinity"):
        return [None] * parts
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < parts:
        return [None] * parts
    return [set(cores[part::parts]) for part in range(parts)]
