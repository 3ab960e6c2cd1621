"""Metrics of a run: one JSON line each in `metrics.jsonl`, and the same for TensorBoard."""

import json
import pathlib
import time
from collections.abc import Iterator, Mapping

from jaxmoe.files import naming, write_text

_SHOWN_AFTER_SECONDS = 60.0  # TensorBoard reads what was flushed; each flush waits for the disk


class MetricsLog:
    """Appends to `metrics.jsonl`; a resumed run drops what came after its checkpoint."""

    def __init__(self, run: pathlib.Path, resume_step: int = 0):
        # Not SummaryWriter: where its thread dies of a full disk, the next metrics wait forever.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._run = run
        board = run / "tensorboard"
        board.mkdir(parents=True, exist_ok=True)
        path = run / "metrics.jsonl"
        kept = [line for line, entry in _entries(path) if entry["step"] <= resume_step]
        if path.is_file():
            write_text(path, "".join(f"{line}\n" for line in kept))
        with naming(run):
            self._file = path.open("a", encoding="utf-8")
            self._board = EventsWriter(str(board / "events"))
            if resume_step:
                start = SessionLog(status=SessionLog.START)
                self._board.write_event(Event(step=resume_step + 1, session_log=start))
            self._board.flush()
        self._flushed = time.monotonic()

    def write(self, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """One line: `{"step": …, name: value, …}`; numbers go to TensorBoard as well.

        Raises:
          OSError: the disk is full or failed, with the run's folder.
        """
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with naming(self._run):
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
            self._file.flush()
            for name, value in metrics.items():
                if isinstance(value, int | float):
                    summary = scalar(name, value)
                    event = Event(wall_time=time.time(), step=step, summary=summary)
                    self._board.write_event(event)
            if time.monotonic() - self._flushed > _SHOWN_AFTER_SECONDS:
                self._board.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Closes the files.

        Raises:
          OSError: as `write`.
        """
        with naming(self._run):
            self._file.close()
            self._board.close()


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
