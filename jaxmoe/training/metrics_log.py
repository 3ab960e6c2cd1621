"""Metrics of a run: one JSON line each in `metrics.jsonl`, and the same for its loggers."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from jaxmoe.files import naming, write_text
from jaxmoe.training.loggers import open_loggers

DEFAULT_LOGGERS = ("tensorboard",)


class MetricsLog:
    """Appends to `metrics.jsonl`; a resumed run drops what came after its checkpoint."""

    def __init__(
        self,
        run: pathlib.Path,
        resume_step: int = 0,
        loggers: Sequence[str] = DEFAULT_LOGGERS,
    ):
        """Opens the file, and the loggers.

        Args:
          run: its folder.
          resume_step: the step that the run goes on from.
          loggers: names of `loggers.LOGGERS`.
        """
        self._run = run
        run.mkdir(parents=True, exist_ok=True)
        path = run / "metrics.jsonl"
        kept = [line for line, entry in _entries(path) if entry["step"] <= resume_step]
        if path.is_file():
            write_text(path, "".join(f"{line}\n" for line in kept))
        with naming(run):
            self._file = path.open("a", encoding="utf-8")
            self._loggers = open_loggers(loggers, run, resume_step)

    def write(self, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """One line: `{"step": …, name: value, …}`; numbers go to the loggers as well.

        Raises:
          OSError: the disk is full or failed, with the run's folder.
        """
        with naming(self._run):
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
            self._file.flush()
            numbers = {n: value for n, value in metrics.items() if isinstance(value, int | float)}
            for logger in self._loggers:
                logger.scalars(step, numbers)

    def close(self) -> None:
        """Closes the files.

        Raises:
          OSError: as `write`.
        """
        with naming(self._run):
            self._file.close()
            for logger in self._loggers:
                logger.close()


def read_metrics(run: pathlib.Path) -> list[dict]:
    """The whole lines of a run's `metrics.jsonl`; a killed run may end in half a line."""
    return [entry for _, entry in _entries(run / "metrics.jsonl")]


def _entries(path: pathlib.Path) -> Iterator[tuple[str, dict]]:
    """The whole lines of a file, as text and as what they say."""
    if not path.is_file():
        return
    # What is half a character, or a block that a crash left empty, is no line of ours.
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            yield line, entry
