"""Runs a cascade: each attempt on the clips that still stand, taken together into full batches.

Axes: N = valid clips, B = batch.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmoe.attacks.cascade import Cascade, Stage
from jaxmoe.attacks.randomized import Randomized
from jaxmoe.attacks.registry import ATTACKS
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.choices import GradientMode
from jaxmoe.evaluation.engine.guards import check_attack
from jaxmoe.evaluation.engine.journal import Journal, entry
from jaxmoe.evaluation.engine.programs import Programs
from jaxmoe.evaluation.engine.rows import StageRow
from jaxmoe.evaluation.engine.scoring import count_classes
from jaxmoe.evaluation.engine.standing import Batch, StandingClips
from jaxmoe.evaluation.engine.summary import mean


class CascadeResult(NamedTuple):
    """The result of a cascade."""

    correct: np.ndarray  # [N], what is right under all attempts; 0 where it was wrong when clean
    stages: list[StageRow]
    confusion: np.ndarray | None  # [N, K, K] of the attempt that left the least, where it is dense
    zero_gradient: float | None  # the largest of an attempt's, as `Row.zero_gradient`


class Cascading(NamedTuple):
    """A cascade, with everything that it needs to run.

    Attributes:
      programs: of the model.
      params: its params.
      clips: those of every attempt.
      settings: of what a stage does not say itself.
      seed: of random starts.
      gradients: modes of a mixture's gradient; an attack that sees it runs with each of them.
      journal: of the evaluation.
      keep: is given a name, the batch, the adversarial clips of an attempt and what is right.
      say: is told of every stage that is done.
      begin: is told of a stage that begins, and of how many clips stand.
      classes: K, where it is known.
      mark: of the files that `keep` makes with the results.
    """

    programs: Programs
    params: Any
    clips: StandingClips
    settings: AttackSettings
    seed: int
    gradients: tuple[GradientMode, ...]
    journal: Journal
    keep: Callable[[str, Batch, np.ndarray, np.ndarray], None] | None = None
    say: Callable[[StageRow], None] = lambda row: None
    begin: Callable[[str, int], None] = lambda attack, left: None
    classes: int | None = None
    mark: str | None = None

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
        for stage in cascade.stages:
            attacked, gradients, seconds = _standing(correct), 0, 0.0
            compiled = self._compile_seconds(stage)
            self.begin(stage.attack, attacked)
            attempts = list(self._attempts(stage))
            batches = functools.partial(
                self.clips.batches,
                most=self.clips.begin(stage.attack, attacked),
                looks=sum(ATTACKS[stage.attack].steps(settings) for settings in attempts),
            )
            for settings in attempts:
                if not _standing(correct):
                    break
                attempt += 1  # over all stages: no two attempts have the same starts
                own = self._entry(name, stage.attack, epsilon, settings, attempt)
                tried = self._attempt(
                    own, attempt, stage.attack, settings, epsilon, correct, confusion, batches
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

    def entries(self, name: str, cascade: Cascade, epsilon: float) -> list[str]:
        """The first parts of all keys that results of a cascade may have in a journal."""
        attempts = [
            (stage.attack, settings)
            for stage in cascade.stages
            for settings in self._attempts(stage)
        ]
        return [
            self._entry(name, attack, epsilon, settings, number)
            for number, (attack, settings) in enumerate(attempts, 1)
        ]

    def _entry(self, name, attack, epsilon, settings, attempt) -> str:
        return entry(attack, settings, name, epsilon, attempt, self.seed, self.mark)

    def _attempts(self, stage: Stage) -> Iterator[AttackSettings]:
        """The settings of a stage's attempts: every target, start and gradient is one."""
        named = ATTACKS[stage.attack]
        modes = self.gradients if named.sees_routing else self.gradients[:1]
        given = dataclasses.replace(self.settings, **stage.numbers)
        for (target, _), mode in itertools.product(named.attempts(given, self._classes()), modes):
            # What an attack believes wrong must be what is scored: one draw of noise is not, nor
            # the soft mixture.
            sure = mode != "soft" and not isinstance(self.programs.model, Randomized)
            yield dataclasses.replace(target, gradient=mode, early_stop=sure)

    def _compile_seconds(self, stage: Stage) -> float:
        return self.programs.compile_seconds.get(stage.attack, 0.0)

    def _classes(self) -> int:
        if self.classes is not None:
            return self.classes
        return count_classes(self.programs.model, self.params, self.clips.first())

    def _attempt(
        self, own, number, attack, settings, epsilon, correct, confusion, batches
    ) -> "_Tried":
        """Runs one attempt on what stands; puts what it leaves into `correct`, `confusion`."""
        total = _Tried(0, 0.0, 0.0)
        for place, (places, size, read) in enumerate(batches(correct)):

            def compute(read=read, place=place):
                name = f"{number}-{place}"
                return self._on_batch(name, read(), attack, settings, epsilon, number)

            key = own, tuple(places.tolist()), size
            right, confused, tried = self.journal.recall(key, compute)
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
    """The cost of an attempt, on a batch or on all."""

    gradients: int  # of each clip of a batch, or of all clips together
    seconds: float
    zero_gradient: float


def _standing(correct: np.ndarray) -> int:
    return int(np.sum(correct > 0))
