"""Metrics of a run: one JSON line each in `metrics.jsonl`, and the same for TensorBoard."""

import json
import pathlib
from collections.abc import Mapping


class MetricsLog:
    """Appends to `metrics.jsonl`; a resumed run drops what came after its checkpoint."""

    def __init__(self, run: pathlib.Path, resume_step: int = 0):
        from tensorboardX import SummaryWriter

        run.mkdir(parents=True, exist_ok=True)
        self._path = run / "metrics.jsonl"
        _truncate(self._path, resume_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(run / "tensorboard"), purge_step=resume_step + 1 if resume_step else None
        )

    def write(self, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """One line: `{"step": …, name: value, …}`; numbers go to TensorBoard as well."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._board.close()


def read_metrics(run: pathlib.Path) -> list[dict]:
    """The lines of a run's `metrics.jsonl`."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _truncate(path: pathlib.Path, last_step: int) -> None:
    """Keeps the whole lines up to `last_step`: a killed run may end in half a line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["step"] <= last_step:
            kept.append(line)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    partial.replace(path)
