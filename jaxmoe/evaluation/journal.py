"""What an evaluation has done so far, in a file that a killed one goes on from.

Every batch's result is appended and flushed. A record that a kill tore off is cut away.
"""

import hashlib
import os
import pathlib
import pickle
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

from jaxmoe import __version__


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
        self._file = None if file is None else pathlib.Path(file)
        self._results = {} if file is None else _open(self._file, fingerprint)
        self.found = len(self._results)

    def recall(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result under `key`: from the file, or computed and then written."""
        if key in self._results:
            return self._results[key]
        result = compute()
        if self._file is not None:
            with open(self._file, "ab") as stream:
                pickle.dump((key, result), stream)
                stream.flush()
                os.fsync(stream.fileno())
        return result


def fingerprint(params: Any, *parts: Any) -> str:
    """A digest of params, this library's version and of everything else by its `repr`."""
    digest = hashlib.sha256(repr((__version__, str(jax.tree.structure(params)), parts)).encode())
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()


def _open(file: pathlib.Path, fingerprint: str) -> dict[Hashable, Any]:
    """What is whole and of this evaluation; the file then ends behind it."""
    results: dict[Hashable, Any] = {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    with open(file, "r+b") as stream:
        whole = 0
        try:
            if pickle.load(stream) == fingerprint:
                whole = stream.tell()
                while True:
                    key, result = pickle.load(stream)
                    results[key] = result
                    whole = stream.tell()
        except Exception:
            pass  # whatever pickle makes of a torn record, or of another file
        stream.seek(whole)
        stream.truncate()
        if not whole:
            pickle.dump(fingerprint, stream)
    return results
