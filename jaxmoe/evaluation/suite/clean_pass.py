"""The clean pass of every evaluation: a model on clean clips, batch by batch, checked.

Axes: N = valid clips, B = batch, K = classes.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmoe.evaluation.diagnostics.model_checks import ModelChecks
from jaxmoe.evaluation.engine.guards import check_batch, check_clean, check_fits
from jaxmoe.evaluation.engine.journal import batch_digest
from jaxmoe.evaluation.engine.programs import Programs
from jaxmoe.evaluation.engine.rows import CLEAN, Check, count_labels
from jaxmoe.evaluation.engine.scoring import Outputs
from jaxmoe.evaluation.engine.summary import to_host
from jaxmoe.evaluation.measures.metrics import accuracy


class CleanPass:
    """Collects the clean results of a model, batch by batch: later passes are compared with them.

    Attributes:
      logits: of each batch, padding included; the mean over pixels where they have labels.
      correct: of each batch, padding included.
      confusion: of each batch, where every position has a label.
      index: the clips' own numbers, of each batch, padding included.
      label: of each batch, padding included.
      valid: False for padding, of each batch.
      seconds: that the model took.
    """

    def __init__(
        self,
        programs: Programs,
        params: Any,
        attacks: Sequence[str] = (),
        what: str = CLEAN,
        *,
        checks: bool = True,
    ):
        """Begins a pass.

        Args:
          programs: of the model.
          params: its params.
          attacks: those that come after it: clips that are not for one of them are refused.
          what: name of the pass, for messages.
          checks: whether the model itself is checked.
        """
        self.programs, self.params, self.attacks, self.what = programs, params, attacks, what
        self._checks = ModelChecks(programs.model, params, self.look, programs.metric)
        self._checked, self._digest = checks, hashlib.sha256()
        self.logits: list[np.ndarray] = []
        self.correct: list[np.ndarray] = []
        self.confusion: list[np.ndarray | None] = []
        self.index: list[np.ndarray] = []
        self.label: list[np.ndarray] = []
        self.valid: list[np.ndarray] = []
        self.seconds = 0.0

    def look(self, batch: dict[str, Any]) -> Outputs:
        """Returns the model's outputs on a batch, in host memory, and keeps nothing."""
        return to_host(self.programs.clean(self.params, batch)[0])

    def add(self, batch: dict[str, Any]) -> tuple[Outputs, Outputs]:
        """Runs the model on a batch; returns its outputs on the device and in host memory.

        Raises:
          ValueError: a batch, or labels, that are none, or clips that are not for an attack.
          NonFiniteError: outputs that are not finite.
        """
        check_batch(batch)
        check_fits(self.attacks, batch)
        result, seconds = self.programs.clean(self.params, batch)
        seen = to_host(result)
        check_clean(seen, batch, self.programs.metric, self.what)
        if self._checked:
            self._checks.add(batch, seen)
        self.logits.append(seen.logits)
        self.correct.append(seen.correct)
        self.confusion.append(seen.confusion)
        for kept, name in ((self.index, "index"), (self.label, "label"), (self.valid, "valid")):
            kept.append(np.asarray(batch[name]))
        self.seconds += seconds
        self._digest.update(batch_digest(batch))
        return result, seen

    def end(self) -> "CleanPass":
        """Returns the pass.

        Raises:
          ValueError: it had no valid clip.
        """
        if not any(valid.any() for valid in self.valid):
            raise ValueError("batches: no valid example")
        return self

    def of_valid(self, batches: Sequence[np.ndarray]) -> np.ndarray:
        """Returns what batches hold of the valid clips, [N, …]."""
        return np.concatenate([each[mask] for each, mask in zip(batches, self.valid, strict=True)])

    @property
    def classes(self) -> int:
        """K, the last axis of the logits."""
        return self.logits[0].shape[-1]

    @property
    def digest(self) -> str:
        """Digest of all batches."""
        return self._digest.hexdigest()

    @property
    def counts(self) -> np.ndarray | None:
        """Labels of each class, [K]; None where `accuracy` is not what is measured."""
        if self.programs.metric is not accuracy:
            return None
        return count_labels(self.of_valid(self.label), self.classes)

    def found(self) -> tuple[Check, ...]:
        """Returns the checks of the model itself."""
        return self._checks.found()
