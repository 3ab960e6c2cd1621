"""What an evaluation has done so far, in a file that a killed one goes on from.

Every batch's result is appended and flushed. A record that a kill tore off is cut away.
"""

import contextlib
import hashlib
import inspect
import os
import pathlib
import pickle
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmoe
from jaxmoe.attacks import ATTACKS
from jaxmoe.evaluation.programs import Programs
from jaxmoe.mixture import Mixture


class Journal:
    """Results by key, each computed once: now, or by an evaluation that was stopped.

    Attributes:
      found: how many results of an earlier evaluation there were.
      note: a line on what the file held; empty where there was nothing.
    """

    def __init__(
        self,
        file: str | os.PathLike | None,
        fingerprint: str,
        logits: Sequence[np.ndarray] = (),
    ):
        """Opens or begins a journal.

        Args:
          file: where; None keeps nothing. It is unpickled: never open one that others wrote.
          fingerprint: of all that the results depend on. A file with another one is put aside, as
            `FILE.` and eight letters, and taken back when its evaluation is.
          logits: of the clean clips, which a model has beside its params; compared up to rounding.
        """
        self._file = None if file is None else pathlib.Path(file)
        header = fingerprint, [np.asarray(part) for part in logits]
        self._results, self.note = ({}, "") if file is None else _open(self._file, header)
        self.found = len(self._results)

    def holds(self, *parts: Hashable) -> bool:
        """Whether there is a result with all of these in its key."""
        own = [{(type(part), part) for part in key} for key in self._results]
        return any(key.issuperset((type(part), part) for part in parts) for key in own)

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


def fingerprint(programs: Programs, params: Any, *parts: Any) -> str:
    """A digest of a model's params and settings, this library's code and the `repr`s of `parts`.

    Of a model that is no mixture the source of its function counts too, where it has one.
    """
    model = programs.model
    mixture = (model.num_experts, model.top_k, model.combine) if isinstance(model, Mixture) else ()
    metric = getattr(programs.metric, "__qualname__", repr(programs.metric))
    structure = str(jax.tree.structure(params))
    named = code_digest(), mixture, _source(model), programs.norm, metric, structure, parts
    digest = hashlib.sha256(repr(named).encode())
    for leaf in jax.tree.leaves(params):
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()


def _source(model: Any) -> str:
    """How a function is written; of a mixture, or where that is not to be found, nothing."""
    if isinstance(model, Mixture):
        return ""
    with contextlib.suppress(TypeError, OSError):
        return inspect.getsource(model)
    return ""


def batch_digest(batch: dict[str, np.ndarray]) -> bytes:
    """Of a batch's clips, labels, indices and padding, those of them that it has."""
    digest = hashlib.sha256()
    for name in ("clip", "label", "index", "valid"):
        if name not in batch:
            continue
        values = np.ascontiguousarray(batch[name])
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values)
    return digest.digest()


def code_digest() -> str:
    """Of every file of this package, and of those that attacks of one's own are written in."""
    files = {*pathlib.Path(jaxmoe.__file__).parent.rglob("*.py")}
    for attack in ATTACKS.values():
        with contextlib.suppress(TypeError):  # made at a prompt: it has no file
            files.add(pathlib.Path(inspect.getsourcefile(attack.build) or jaxmoe.__file__))
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _open(
    file: pathlib.Path, header: tuple[str, list[np.ndarray]]
) -> tuple[dict[Hashable, Any], str]:
    """What is whole and of this evaluation, where the file then ends; a line on what it held."""
    file.parent.mkdir(parents=True, exist_ok=True)
    own, aside, note = _aside(file, header[0]), None, ""
    if file.is_file() and file.stat().st_size and not _is_of(file, header):
        aside = _aside(file, _fingerprint_of(file))
        os.replace(file, aside)
        note = f"{file} was of another evaluation (settings, params, clips or code): now {aside}"
        if own != aside and own.is_file() and _is_of(own, header):
            os.replace(own, file)
    results: dict[Hashable, Any] = {}
    if not (file.is_file() and file.stat().st_size):
        with open(file, "wb") as stream:
            pickle.dump(header, stream)
        return results, note
    with open(file, "rb") as stream:
        pickle.load(stream)
        whole = stream.tell()
        with contextlib.suppress(Exception):  # whatever pickle makes of a torn record
            while True:
                key, result = pickle.load(stream)
                results[key] = result
                whole = stream.tell()
    os.truncate(file, whole)
    if results:
        found = f"going on from {file}: {len(results)} results are there"
        note = f"{found}; another evaluation's are now {aside}" if aside else found
    return results, note


def _aside(file: pathlib.Path, fingerprint: str) -> pathlib.Path:
    """Where the journal of one evaluation is while another has its place."""
    return file.with_name(f"{file.name}.{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}")


def _fingerprint_of(file: pathlib.Path) -> str:
    """What the first record says; of what is no journal, its bytes."""
    try:
        with open(file, "rb") as stream:
            return str(pickle.load(stream)[0])
    except Exception:
        return hashlib.sha256(file.read_bytes()).hexdigest()


def _is_of(file: pathlib.Path, header: tuple[str, list[np.ndarray]]) -> bool:
    """Whether a file begins with this header."""
    with open(file, "rb") as stream, contextlib.suppress(Exception):
        return _same(pickle.load(stream), header)
    return False


def _same(one: tuple[str, list[np.ndarray]], other: tuple[str, list[np.ndarray]]) -> bool:
    """Whether two headers are of the same evaluation."""
    if one[0] != other[0] or len(one[1]) != len(other[1]):
        return False
    return all(a.shape == b.shape and _close(a, b) for a, b in zip(one[1], other[1], strict=True))


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal up to rounding; what is no number, as padding may be, is equal to itself."""
    size = np.max(np.abs(other), initial=0, where=np.isfinite(other))
    return np.allclose(one, other, rtol=1e-3, atol=1e-3 * size, equal_nan=True)
