"""What an evaluation has done so far, in a file that a killed one goes on from.

Every batch's result is appended and flushed. A record that a kill tore off is cut away.
"""

import os
import pathlib
import pickle
from collections.abc import Callable, Hashable
from typing import Any


class Journal:
    """Results by key, each computed once: now, or by an evaluation that was stopped.

    Attributes:
      found: how many results of an earlier evaluation there were.
    """

    def __init__(self, file: str | os.PathLike | None, fingerprint: str):
        """Opens or begins a journal.

        Args:
          file: where; None keeps nothing.
          fingerprint: of all that the results depend on. A file with another one is begun anew.
        """
        self._results: dict[Hashable, Any] = {}
        self._stream = None
        if file is not None:
            self._stream = _open(pathlib.Path(file), fingerprint, self._results)
        self.found = len(self._results)

    def recall(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result under `key`: from the file, or computed and then written."""
        if key in self._results:
            return self._results[key]
        result = compute()
        if self._stream is not None:
            pickle.dump((key, result), self._stream)
            self._stream.flush()
            os.fsync(self._stream.fileno())
        return result

    def close(self) -> None:
        """Closes the file; it stays until the evaluation's own files are written."""
        if self._stream is not None:
            self._stream.close()


def _open(file: pathlib.Path, fingerprint: str, results: dict[Hashable, Any]) -> Any:
    """The stream to append to; fills `results` with what is whole and of this evaluation."""
    file.parent.mkdir(parents=True, exist_ok=True)
    stream = open(file, "r+b" if file.exists() else "w+b")  # noqa: SIM115
    whole = 0
    try:
        if pickle.load(stream) == fingerprint:
            whole = stream.tell()
            while True:
                key, result = pickle.load(stream)
                results[key] = result
                whole = stream.tell()
    except (EOFError, pickle.UnpicklingError, ValueError, AttributeError, ImportError, IndexError):
        pass  # the end, or a record that was not written to its end
    stream.seek(whole)
    stream.truncate()
    if not whole:
        pickle.dump(fingerprint, stream)
        stream.flush()
    return stream
