"""The journal of an evaluation: a file from which a killed one goes on.

Every batch's result is appended and flushed. A record that a kill tore off is cut away. A file is
of one model and its clips; a record's key begins with a digest of the attack, ε and numbers that it
was made with (`entry`), so that other attacks, ε and numbers stand beside it.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import itertools
import os
import pathlib
import pickle
from collections.abc import Callable, Container, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmoe
from jaxmoe import plugins
from jaxmoe.attacks import ATTACKS, AttackSettings
from jaxmoe.evaluation.engine.programs import Programs
from jaxmoe.evaluation.measures.measures import MEASURES
from jaxmoe.files import code_digest
from jaxmoe.mixture import Mixture
from jaxmoe.parallel import hosts

_PACKAGE = pathlib.Path(jaxmoe.__file__).parent


class Journal:
    """Results by key, each computed once: now, or by an evaluation that was stopped.

    Attributes:
      found: how many results of an earlier evaluation there were.
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
          fingerprint: of all that every result depends on. A file with another one is put aside,
            as `FILE.` and eight letters, and taken back when its evaluation is.
          logits: of the clean clips, which a model has beside its params; compared up to rounding.
        """
        self._file = None if file is None else pathlib.Path(file)
        header = fingerprint, [np.asarray(part) for part in logits]
        self._results, self._aside = ({}, None) if file is None else _open_once(self._file, header)
        self.found = len(self._results)

    def holds(self, first: Hashable) -> bool:
        """Returns whether there is a result whose key begins with this."""
        return any(key[0] == first for key in self._results)

    def note(self, wanted: Container[Hashable]) -> str:
        """A line on what the file held for keys that begin with one of `wanted`; else nothing."""
        if found := sum(key[0] in wanted for key in self._results):
            line = f"going on from {self._file}: {found} results are there"
            return f"{line}; another evaluation's are now {self._aside}" if self._aside else line
        if self._aside:
            return (
                f"{self._file} was of another evaluation (params, examples or code): now "
                f"{self._aside}"
            )
        return ""

    def __contains__(self, key: tuple) -> bool:
        return key in self._results

    def recall(self, key: tuple, compute: Callable[[], Any]) -> Any:
        """The result under `key`: from the file, or computed and then written."""
        if key in self._results:
            return self._results[key]
        result = compute()
        if self._file is not None and hosts.is_first():
            with open(self._file, "ab") as stream:
                pickle.dump((key, result), stream)
                stream.flush()
                os.fsync(stream.fileno())
        return result

    def model(self, fingerprint: str, logits: Sequence[np.ndarray]) -> str:
        """A name in this journal for a model with this fingerprint and these clean logits."""
        logits = [np.asarray(part) for part in logits]
        for number in itertools.count():
            key = "model", fingerprint, number
            self._results[key] = self.recall(key, lambda: logits)
            if _same(("", self._results[key]), ("", logits)):
                return f"{fingerprint} {number}"
        raise AssertionError("never")


def entry(attack: str, settings: AttackSettings, *parts: Any) -> str:
    """A digest of an attack, of those of its numbers that count, and of the `repr`s of `parts`."""
    numbers, code = dataclasses.asdict(settings), ""
    if attack in ATTACKS:  # universal perturbations are not
        numbers, code = ATTACKS[attack].numbers(settings), _code_of(attack)
    return hashlib.sha256(repr((attack, numbers, code, parts)).encode()).hexdigest()[:16]


def model_digest(programs: Programs, params: Any, *parts: Any) -> str:
    """A digest of a model's params and settings, this library's code and the `repr`s of `parts`.

    Of a model that is no mixture the source of its function counts too, where it has one.
    """
    model = programs.model
    mixture = (model.num_experts, model.top_k, model.combine) if isinstance(model, Mixture) else ()
    metric = getattr(programs.metric, "__qualname__", repr(programs.metric))
    structure = str(jax.tree.structure(params))
    named = code_digest(), mixture, _source(model), programs.norm, metric, structure, parts
    if programs.measures or plugins.digests():
        named = *named, sorted(programs.measures), plugins.digests()
        named = *named, [_file_of(MEASURES[name].of) for name in sorted(programs.measures)]
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
    """Digests a batch's clips, labels, indices and padding, as far as it has them."""
    digest = hashlib.sha256()
    for name in ("clip", "label", "index", "valid"):
        if name not in batch:
            continue
        values = np.ascontiguousarray(batch[name])
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values)
    return digest.digest()


def _code_of(attack: str) -> str:
    """A digest of the file that an attack of one's own is written in."""
    return _file_of(ATTACKS[attack].build)


def _file_of(function: Callable) -> str:
    """A digest of the file that a function of one's own is written in; nothing of ours."""
    with contextlib.suppress(TypeError, OSError):  # made at a prompt: it has no file
        file = pathlib.Path(inspect.getsourcefile(function))
        if not file.is_relative_to(_PACKAGE):
            return hashlib.sha256(file.read_bytes()).hexdigest()
    return ""


def _open_once(file: pathlib.Path, header: tuple) -> tuple[dict, pathlib.Path | None]:
    """As `_open`; of several processes the first reads, and tells the others."""
    if jax.process_count() == 1:
        return _open(file, header)
    found = pickle.dumps(_open(file, header)) if hosts.is_first() else b""
    return pickle.loads(hosts.broadcast(found))


def _open(
    file: pathlib.Path, header: tuple[str, list[np.ndarray]]
) -> tuple[dict[tuple, Any], pathlib.Path | None]:
    """Reads the whole records of this model and cuts the rest; also where another's file is now."""
    file.parent.mkdir(parents=True, exist_ok=True)
    own, aside = _aside(file, header[0]), None
    if file.is_file() and file.stat().st_size and not _is_of(file, header):
        aside = _aside(file, _fingerprint_of(file))
        os.replace(file, aside)
        if own != aside and own.is_file() and _is_of(own, header):
            os.replace(own, file)
    results: dict[tuple, Any] = {}
    if not (file.is_file() and file.stat().st_size):
        with open(file, "wb") as stream:
            pickle.dump(header, stream)
        return results, aside
    with open(file, "rb") as stream:
        pickle.load(stream)
        whole = stream.tell()
        with contextlib.suppress(Exception):  # whatever pickle makes of a torn record
            while True:
                key, result = pickle.load(stream)
                results[key] = result
                whole = stream.tell()
    os.truncate(file, whole)
    return results, aside


def _aside(file: pathlib.Path, fingerprint: str) -> pathlib.Path:
    """Where the journal of one evaluation is while another has its place."""
    return file.with_name(f"{file.name}.{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}")


def _fingerprint_of(file: pathlib.Path) -> str:
    """Returns the first record; of a file that is no journal, its bytes."""
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
