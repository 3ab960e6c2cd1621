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
from jaxmoe.evaluation.engine.candidates import Again, Line, Pair
from jaxmoe.evaluation.engine.guards import check_attack
from jaxmoe.evaluation.engine.journal import Journal, entry
from jaxmoe.evaluation.engine.kept import Kept
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
    kept: Kept | None  # [N] of the attempt that broke an example, or came nearest to that


@dataclasses.dataclass
class Left:
    """The clips as a cascade leaves them so far.

    Attributes:
      correct: what is right under all attempts, [N].
      confusion: of the attempt that left the least, [N, K, K], where labels are of pixels.
      kept: facts of the attempt that left the least, and of these the one that left the least
        confidence; of a clip that no attempt has seen those without an attack.
    """

    correct: np.ndarray
    confusion: np.ndarray | None = None
    kept: Kept | None = None

    def __post_init__(self):
        copies = (self.correct, self.confusion, self.kept)
        self.correct, self.confusion, self.kept = jax.tree.map(np.copy, copies)
        self._confidence = np.full(len(self.correct), np.inf)

    def take(self, places: np.ndarray, found: "_Found") -> None:
        """Takes what an attempt left of the clips at these places."""
        less = found.right < self.correct[places]
        if self.confusion is not None:
            self.confusion[places[less]] = found.confusion[less]
        if self.kept is not None:
            # Where labels are of pixels there is no confidence: the first of equals stays.
            confidence = np.nan_to_num(found.kept.confidence)
            nearer = confidence < self._confidence[places]
            nearer = less | (found.right == self.correct[places]) & nearer
            self._confidence[places[nearer]] = confidence[nearer]
            for all_clips, of_batch in zip(self.kept, found.kept, strict=True):
                if all_clips is not None:
                    all_clips[places[nearer]] = of_batch[nearer]
        self.correct[places] = np.minimum(self.correct[places], found.right)


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
      line: takes clips of the candidates to be shown; None where nobody is.
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
    line: Line | None = None

    def run(
        self,
        name: str,
        cascade: Cascade,
        epsilon: float,
        clean_correct: np.ndarray,
        clean_confusion: np.ndarray | None = None,
        clean_kept: Kept | None = None,
    ) -> CascadeResult:
        """Attacks the clips that are right when clean, attempt by attempt.

        Args:
          name: of the cascade.
          cascade: what to run.
          epsilon: radius in pixel units.
          clean_correct: of the valid clips in the order of a pass, [N], 1 for right.
          clean_confusion: their confusion matrices, [N, K, K], where every position has a label.
          clean_kept: facts of them; None keeps none.

        Raises:
          As `evaluate_suite`.
        """
        left, rows, zero, attempt = Left(clean_correct, clean_confusion, clean_kept), [], [], 0
        correct = left.correct
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
                tried = self._attempt(own, attempt, stage.attack, settings, epsilon, left, batches)
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
        return CascadeResult(correct, rows, left.confusion, max(zero, default=None), left.kept)

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

    def _attempt(self, own, number, attack, settings, epsilon, left, batches) -> "_Tried":
        """Runs one attempt on what stands; puts what it leaves into `left`."""
        total = _Tried(0, 0.0, 0.0)
        for place, (places, size, read) in enumerate(batches(left.correct)):
            on_batch = functools.partial(self._on_batch, places, attack, settings, epsilon, number)
            clips: dict[int, Pair] = {}

            def compute(read=read, place=place, on_batch=on_batch, clips=clips):
                found, pairs = on_batch(read(), f"{number}-{place}")
                clips.update(pairs)
                return found

            found = self.journal.recall((own, tuple(places.tolist()), size), compute)
            left.take(places, found)
            again = Again(functools.partial(self._again, on_batch, places, size))
            self._offer(places, found, clips or again)
            tried, share = found.tried, found.tried.zero_gradient * len(places) / len(left.correct)
            total = _Tried(
                total.gradients + tried.gradients * len(places),
                total.seconds + tried.seconds,
                total.zero_gradient + share,
            )
        return total

    def _offer(self, places: np.ndarray, found: "_Found", clips: dict[int, Pair] | Again) -> None:
        if self.line is not None:
            self.line.offer(places, found.right, found.kept.confidence, clips)

    def _again(self, on_batch: Callable, places: np.ndarray, size: int) -> dict[int, Pair]:
        """The clips of a batch that a journal recalled."""
        return on_batch(self.clips.gather(places, size))[1]

    def _on_batch(self, places, attack, settings, epsilon, attempt, batch, name=None):
        """Runs an attempt on a batch; returns what it leaves, and clips of the candidates."""
        result, seconds = self.programs.attack(
            attack, self.params, batch, epsilon, settings, self.seed, attempt
        )
        verdict, _ = self.programs.verify(self.params, batch, result.x_adv, epsilon)
        if self.keep and name is not None:
            self.keep(name, batch, np.asarray(result.x_adv), np.asarray(verdict.correct))
        pairs: dict[int, Pair] = {}
        if self.line is not None:
            x_adv = result.x_adv
            at = lambda rows: np.asarray(x_adv)[rows]  # noqa: E731
            pairs = self.line.candidates.pairs(places, batch, at, result.step_sizes)
        result = result._replace(x_adv=None, step_sizes=None)
        result, verdict = jax.device_get((result, verdict))
        check_attack(result, verdict, batch, attack, epsilon)
        valid = batch["valid"]
        right, confusion, kept = jax.tree.map(
            lambda values: values[valid], (verdict.correct, verdict.confusion, verdict.kept)
        )
        tried = int(result.gradients), seconds, mean(right * result.zero_gradient[valid])
        return _Found(right, confusion, kept, _Tried(*tried)), pairs


class _Tried(NamedTuple):
    """The cost of an attempt, on a batch or on all."""

    gradients: int  # of each clip of a batch, or of all clips together
    seconds: float
    zero_gradient: float


class _Found(NamedTuple):
    """The valid clips of a batch, as an attempt leaves them."""

    right: np.ndarray
    confusion: np.ndarray | None
    kept: Kept
    tried: _Tried


def _standing(correct: np.ndarray) -> int:
    return int(np.sum(correct > 0))
