"""Runs a cascade: each attempt on the clips that still stand, taken together into full batches.

Batches have one of two sizes, so that nothing is compiled for what happens to be left.
Axes: N = valid clips, B = batch.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmoe.attacks.cascade import Cascade, Stage
from jaxmoe.attacks.randomized import Randomized
from jaxmoe.attacks.registry import ATTACKS
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.evaluation.guards import check_attack
from jaxmoe.evaluation.journal import Journal
from jaxmoe.evaluation.programs import Programs
from jaxmoe.evaluation.rows import StageRow
from jaxmoe.evaluation.scoring import count_classes
from jaxmoe.evaluation.summary import mean
from jaxmoe.mixture import GradientMode

SMALLER = 4  # the smaller batches hold so many times fewer clips

Batch = dict[str, np.ndarray]


class CascadeResult(NamedTuple):
    """What a cascade found."""

    correct: np.ndarray  # [N], what is right under all attempts; 0 where it was wrong when clean
    stages: list[StageRow]
    confusion: np.ndarray | None  # [N, K, K] of the attempt that left the least, where it is dense
    zero_gradient: float | None  # the largest of an attempt's, as `Row.zero_gradient`


class Cascading(NamedTuple):
    """What a cascade runs with.

    Attributes:
      programs: of the model.
      params: its params.
      batches: makes one pass over the clips, always the same, as for `evaluate_suite`.
      settings: of what a stage does not say itself.
      seed: of random starts.
      gradients: modes of a mixture's gradient; an attack that sees it runs with each of them.
      journal: of the evaluation.
      keep: is given a name, the batch, the adversarial clips of an attempt and what is right.
      say: is told of every stage that is done.
    """

    programs: Programs
    params: Any
    batches: Callable[[], Iterable[Batch]]
    settings: AttackSettings
    seed: int
    gradients: tuple[GradientMode, ...]
    journal: Journal
    keep: Callable[[str, Batch, np.ndarray, np.ndarray], None] | None = None
    say: Callable[[StageRow], None] = lambda row: None
    begin: Callable[[str, int], None] = lambda attack, left: None

    def run(
        self,
        name: str,
        cascade: Cascade,
        epsilon: float,
        clean_correct: np.ndarray,
        clean_confusion: np.ndarray | None = None,
    ) -> CascadeResult:
        """Attacks the clips that are right when clean, attempt by attempt.

        Args:
          name: of the cascade.
          cascade: what to run.
          epsilon: radius in pixel units.
          clean_correct: of the valid clips in the order of a pass, [N], 1 for right.
          clean_confusion: their confusion matrices, [N, K, K], where every position has a label.

        Raises:
          As `evaluate_suite`.
        """
        correct, rows, zero, attempt = clean_correct.copy(), [], [], 0
        confusion = None if clean_confusion is None else clean_confusion.copy()
        for number, stage in enumerate(cascade.stages):
            attacked, gradients, seconds = _standing(correct), 0, 0.0
            compiled = self._compile_seconds(stage)
            self.begin(stage.attack, attacked)
            for settings in self._attempts(stage):
                if not _standing(correct):
                    break
                attempt += 1  # over all stages: no two attempts have the same starts
                tried = self._attempt(
                    (name, repr(stage), epsilon, number, attempt),
                    stage.attack,
                    settings,
                    epsilon,
                    correct,
                    confusion,
                )
                gradients += tried.gradients
                seconds += tried.seconds
                idle = not tried.gradients or ATTACKS[stage.attack].idles(self.programs.model)
                zero += [] if idle else [tried.zero_gradient]
            rows.append(
                StageRow(
                    cascade=name,
                    attack=stage.attack,
                    epsilon=epsilon,
                    robust_accuracy=mean(correct),
                    standing=_standing(correct),
                    attacked=attacked,
                    gradient_evaluations=gradients,
                    seconds=seconds,
                    compile_seconds=self._compile_seconds(stage) - compiled,
                )
            )
            self.say(rows[-1])
        return CascadeResult(correct, rows, confusion, max(zero, default=None))

    def _attempts(self, stage: Stage) -> Iterator[AttackSettings]:
        """The settings of a stage's attempts: every target, start and gradient is one."""
        named = ATTACKS[stage.attack]
        modes = self.gradients if named.sees_routing else self.gradients[:1]
        given = dataclasses.replace(self.settings, **stage.numbers)
        for (target, _), mode in itertools.product(named.attempts(given, self._classes()), modes):
            # What an attack believes wrong must be what is scored: one draw of noise is not, nor
            # the soft mixture.
            sure = mode != "soft" and not isinstance(self.programs.model, Randomized)
            yield dataclasses.replace(target, gradient=mode, until_wrong=sure)

    def _compile_seconds(self, stage: Stage) -> float:
        return self.programs.compile_seconds.get(stage.attack, 0.0)

    def _classes(self) -> int:
        return count_classes(self.programs.model, self.params, next(iter(self.batches())))

    def _attempt(self, key, attack, settings, epsilon, correct, confusion) -> "_Tried":
        """Runs one attempt on what stands; puts what it leaves into `correct`, `confusion`."""
        total = _Tried(0, 0.0, 0.0)
        for number, (places, batch) in enumerate(standing_batches(self.batches(), correct)):

            def compute(batch=batch, number=number):
                name = "-".join(map(str, [*key[-2:], number]))
                return self._on_batch(name, batch, attack, settings, epsilon, key[-1])

            right, confused, tried = self.journal.recall((*key, number, tuple(places)), compute)
            if confusion is not None:
                less = right < correct[places]
                confusion[places[less]] = confused[less]
            correct[places] = np.minimum(correct[places], right)
            share = tried.zero_gradient * len(places) / len(correct)
            total = _Tried(
                total.gradients + tried.gradients * len(places),
                total.seconds + tried.seconds,
                total.zero_gradient + share,
            )
        return total

    def _on_batch(self, name, batch, attack, settings, epsilon, attempt):
        result, seconds = self.programs.attack(
            attack, self.params, batch, epsilon, settings, self.seed, attempt
        )
        verdict, _ = self.programs.verify(self.params, batch, result.x_adv, epsilon)
        if self.keep:
            self.keep(name, batch, np.asarray(result.x_adv), np.asarray(verdict.correct))
        result, verdict = jax.device_get((result._replace(x_adv=None), verdict))
        check_attack(result, verdict, batch, attack, epsilon)
        valid = batch["valid"]
        right = verdict.correct[valid]
        zero = mean(right * result.zero_gradient[valid])
        confused = None if verdict.confusion is None else verdict.confusion[valid]
        return right, confused, _Tried(int(result.gradients), seconds, zero)


class _Tried(NamedTuple):
    """What an attempt cost, on a batch or on all."""

    gradients: int  # of each clip of a batch, or of all clips together
    seconds: float
    zero_gradient: float


def standing_batches(
    batches: Iterable[Batch], correct: np.ndarray
) -> Iterator[tuple[np.ndarray, Batch]]:
    """The clips of a pass that stand, in full batches and a few smaller ones, all else left out.

    Args:
      batches: one pass.
      correct: of the pass's valid clips, [N]; a clip stands above 0.

    Yields:
      The places in `correct` of a batch's valid clips, and the batch. Its size is that of the pass
      or a quarter of it; what is missing is filled up with its first clip, which is not valid.
    """
    stands = correct > 0
    size, done, places, waiting, full = 0, 0, np.zeros(0, int), None, False
    for batch in batches:
        size = len(batch["valid"])
        here = np.flatnonzero(batch["valid"])
        number = done + np.arange(len(here))
        done += len(here)
        chosen = stands[number]
        picked = {name: np.asarray(batch[name])[here[chosen]] for name in batch}
        places = np.concatenate([places, number[chosen]])
        waiting = picked if waiting is None else _join(waiting, picked)
        while len(places) >= size:
            full = True
            yield places[:size], _part(waiting, 0, size)
            places, waiting = places[size:], _part(waiting, size, len(places))
    smaller = max(size // SMALLER, 1)
    # What is compiled already serves for a rest that fills more than a quarter.
    if len(places) > (smaller if full else size - smaller):
        smaller = size
    while len(places):
        yield places[:smaller], _filled(_part(waiting, 0, smaller), smaller)
        places, waiting = places[smaller:], _part(waiting, smaller, len(places))


def _part(batch: Batch, start: int, end: int) -> Batch:
    return {name: values[start:end] for name, values in batch.items()}


def _join(first: Batch, second: Batch) -> Batch:
    return {name: np.concatenate([first[name], second[name]]) for name in first}


def _filled(batch: Batch, size: int) -> Batch:
    missing = size - len(batch["valid"])
    filled = {
        name: np.concatenate([values, np.repeat(values[:1], missing, axis=0)])
        for name, values in batch.items()
    }
    filled["valid"] = np.arange(size) < size - missing
    return filled


def _standing(correct: np.ndarray) -> int:
    return int(np.sum(correct > 0))
