"""Checks of a model before any attack: it has an answer of its own, by logits, and no guess.

Axes: N = valid clips, K = classes.
"""

from typing import Any

import numpy as np

from jaxmoe.attacks.attack import Model
from jaxmoe.evaluation.diagnostics.consistency import Look, consistency_check
from jaxmoe.evaluation.engine.rows import Check
from jaxmoe.evaluation.engine.scoring import Metric, Outputs
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.evaluation.measures.significance import exceeds, interval

_NEAR = 0.15  # of the way from guessing to always right
_TINY = 0.5  # a margin of logits whose odds are 1.6 to 1


class ModelChecks:
    """The checks of a model on a pass of clean clips, batch by batch."""

    def __init__(self, model: Model, params: Any, look: Look, metric: Metric = accuracy):
        """Begins a pass; `look` gives the outputs of a batch, as the pass itself does."""
        self._model, self._params, self._look = model, params, look
        self._metric = metric
        self._consistent: Check | None = None
        self._seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, batch: dict[str, np.ndarray], outputs: Outputs) -> None:
        """Takes a batch and its outputs, of `to_host`. The first is looked at once more."""
        valid = np.asarray(batch["valid"])
        if not valid.any():
            return
        if self._consistent is None:
            self._consistent = consistency_check(
                self._model, self._params, self._look, batch, outputs
            )
        parts = outputs.correct, np.asarray(batch["label"]), outputs.logits
        self._seen.append(tuple(part[valid] for part in parts))

    def found(self) -> tuple[Check, ...]:
        """Returns the checks of all clips so far, none without any."""
        if self._consistent is None:
            return ()
        correct, label, logits = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
        checks = self._consistent, logits_check(logits)
        if self._metric is not accuracy:  # what it calls right may have another chance
            return checks
        prediction = margin = None
        if label.ndim == 1:
            ordered = np.sort(logits, axis=-1)
            prediction = logits.argmax(axis=-1)
            margin = float(np.median(ordered[:, -1] - ordered[:, -2]))
        return *checks, guessing_check(correct, label, logits.shape[-1], prediction, margin)


def logits_check(logits: np.ndarray) -> Check:
    """Outputs that are all ≥ 0 and add up to 1 are probabilities, and no logits."""
    sums = np.isclose(logits.sum(axis=-1), 1, atol=1e-4)
    chances = (logits.min(axis=-1) >= 0) & sums
    share = float(np.mean(chances))
    if share == 1 and logits.shape[-1] > 1:
        sentence = (
            "Outputs look like probabilities; attacks need the logits before the softmax, whose "
            "gradient does not vanish where it is sure."
        )
        return Check("outputs are logits", share, "flag", sentence, "model")
    sentence = f"{share:.1%} of the outputs look like probabilities."
    return Check("outputs are logits", share, "pass", sentence, "model")


def guessing_check(
    correct: np.ndarray,
    label: np.ndarray,
    classes: int,
    prediction: np.ndarray | None = None,
    margin: float | None = None,
) -> Check:
    """Returns whether clean accuracy is more than a guess has, or one class for all clips.

    What hardly depends on the input is hard to attack, and robust for nothing.

    Args:
      correct: what is right, [N]; of dense labels a share.
      label: [N], or one for each position, void ones below 0.
      classes: K.
      prediction: [N], where clips have one label.
      margin: the median difference of the first two logits.
    """
    name, n, dense = "better than a guess", len(correct), label.ndim > 1
    labels = label[label >= 0]
    largest = float(np.bincount(labels.ravel()).max() / labels.size) if labels.size else 1.0
    guess = max(largest, 1 / classes)
    right = float(np.mean(correct, dtype=np.float64))
    low, high = _interval(correct, dense=dense)
    stated = (
        f"Clean accuracy is {right:.1%} of {n} examples (95 % interval {low:.1%} to {high:.1%}); "
        f"chance is {1 / classes:.1%}, the largest class {largest:.1%}"
    )
    if guess == 1 or not (dense or exceeds(n, n, guess)):
        return Check(name, right - guess, "not run", f"{stated}: too few to tell.", "model")
    near = low <= guess if dense else not exceeds(float(np.sum(correct)), n, guess)
    # Of many classes, several times what a guess has right is no guess.
    close = right < min(guess + _NEAR * (1 - guess), 2 * guess)
    barely = margin is not None and margin < _TINY and close
    if not (near or barely):
        return Check(name, right - guess, "pass", f"{stated}.", "model")
    if prediction is not None:
        chosen = np.unique(prediction, return_counts=True)[1].max() / n
        stated += f"; {chosen:.1%} of the predictions are of one class"
    if margin is not None:
        stated += f"; the median margin of the first logit is {margin:.2g}"
    said = "not to be told from" if near else "hardly more than"
    sentence = f"{stated}: {said} a guess, whose robustness is worth nothing."
    return Check(name, right - guess, "flag", sentence, "model")


def _interval(correct: np.ndarray, *, dense: bool) -> tuple[float, float]:
    """95 % of the mean: exact of right and wrong, normal of shares of positions."""
    n = len(correct)
    if not dense:
        return interval(float(np.sum(correct, dtype=np.float64)), n)
    middle = float(np.mean(correct, dtype=np.float64))
    wide = 1.96 * float(np.std(correct, dtype=np.float64)) / np.sqrt(n)
    return max(middle - wide, 0.0), min(middle + wide, 1.0)
