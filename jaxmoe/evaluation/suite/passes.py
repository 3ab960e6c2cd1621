"""The passes of a suite over its clips: the clean one, an attack at one ε, a cascade at one ε.

Axes: N = valid clips, B = batch, M = experts.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmoe.attacks import ATTACKS, AttackResult
from jaxmoe.attacks.cascade import CASCADES, Cascade
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.choices import GradientMode
from jaxmoe.evaluation.engine.candidates import Again, Candidates, Line, Pair
from jaxmoe.evaluation.engine.cascade import Cascading
from jaxmoe.evaluation.engine.examples import Examples
from jaxmoe.evaluation.engine.guards import (
    DIFFERENT_PASS,
    check_attack,
    check_same_pass,
)
from jaxmoe.evaluation.engine.journal import Journal, entry
from jaxmoe.evaluation.engine.kept import Kept, compact, join_kept
from jaxmoe.evaluation.engine.programs import OUTPUTS, Programs
from jaxmoe.evaluation.engine.rows import CLEAN, Row, StageRow, robust, stage_line
from jaxmoe.evaluation.engine.scoring import Scores
from jaxmoe.evaluation.engine.standing import StandingClips
from jaxmoe.evaluation.engine.strongest import pick, strongest
from jaxmoe.evaluation.engine.summary import (
    iou_fields,
    join_confusion,
    join_or_none,
    join_valid,
    mean,
    mean_measures,
    summarize_isolated,
    summarize_lipschitz,
    summarize_routing,
)
from jaxmoe.evaluation.suite.suite_pass import Clean, SuitePass
from jaxmoe.mixture import Mixture
from jaxmoe.threat import format_epsilon

BatchesFactory = Callable[[], Iterable[dict[str, np.ndarray]]]
"""Each call is one pass over the same clips, in the same order and batches."""
Progress = Callable[[int, int, str], None]
"""`(batches done, batches in all, what runs)`; the total is known after the clean pass."""


@dataclasses.dataclass
class Passes:
    """The passes of a suite, with everything that they share."""

    programs: Programs
    params: Any
    batches: BatchesFactory
    settings: AttackSettings
    gradients: tuple[GradientMode, ...]
    seed: int
    progress: Progress | None
    journal: Journal = dataclasses.field(default_factory=lambda: Journal(None, ""))
    examples: pathlib.Path | None = None
    say: Callable[[str], None] = lambda line: None
    stages: list[StageRow] = dataclasses.field(default_factory=list)  # of cascades so far
    margins: dict[tuple[str, float], np.ndarray] = dataclasses.field(default_factory=dict)
    kept: dict[tuple[str, float], Kept] = dataclasses.field(default_factory=dict)
    candidates: Candidates | None = None  # of the examples that are shown whole
    done: int = 0
    total: int = 0
    clips: StandingClips | None = None  # of all cascades: what one has read serves the next
    cascades: Mapping[str, Cascade] = dataclasses.field(default_factory=lambda: CASCADES)

    def clean(
        self,
        passes: int,
        probe_batches: int,
        attacks: Sequence[str] = (),
        *,
        checks: bool = True,
    ) -> Clean:
        """Runs the clean clips; `passes` is how many there will be with this one.

        `checks` says whether the model itself is checked.

        Raises:
          ValueError: no valid clip, or clips that are not for one of `attacks`.
        """
        seen = SuitePass(self.programs, self.params, attacks, probe_batches, checks=checks)
        compiled = _seconds_of(self.programs, OUTPUTS)
        self.begin(CLEAN)
        for batch in self.batches():
            seen.add(batch)
            self._report(CLEAN)
        seen.end()
        self.total = passes * len(seen.valid)
        return seen.summary(_seconds_of(self.programs, OUTPUTS) - compiled, self.seed)

    def attack(
        self, name: str, epsilon: float, clean: Clean
    ) -> tuple[Row, np.ndarray, np.ndarray | None]:
        """Runs one attack at one ε; its row, what was right under it, [N], and confused, [N, …]."""
        scores, valid, seen, seconds, done = [], [], [], 0.0, 0
        compiled, line = _seconds_of(self.programs, name), self._line(epsilon)
        what, own = self._what(name, epsilon), self._entry(name, epsilon)
        self.begin(what)
        for position, batch in enumerate(self.batches()):
            check_same_pass(batch, clean.batch_indices, position)
            valid.append(np.asarray(batch["valid"]))
            places = done + np.arange(valid[-1].sum())
            on_batch = functools.partial(self._on_batch, name, epsilon, clean, position, places)
            clips: dict[int, Pair] = {}

            def compute(batch=batch, on_batch=on_batch, clips=clips):
                found, pairs = on_batch(batch, keep=self._keep(name, epsilon))
                clips.update(pairs)
                return found

            result, score, batch_seconds = self.journal.recall((own, position), compute)
            confidence = score.kept.confidence[valid[-1]]
            again = Again(functools.partial(self._again, on_batch, position))
            if line:
                line.offer(places, score.correct[valid[-1]], confidence, clips or again)
            done += len(places)
            seconds += batch_seconds
            scores.append(score)
            seen.append(result)
            self._report(what)
        if len(scores) != len(clean.outputs):
            raise ValueError(DIFFERENT_PASS.format(len(scores)))
        self.kept[name, epsilon] = join_kept([score.kept for score in scores], valid)
        margin = join_or_none([score.margin for score in scores], valid)
        if margin is not None:
            self.margins[name, epsilon] = margin
        compiled = _seconds_of(self.programs, name) - compiled
        confusion = join_confusion([score.confusion for score in scores], valid)
        row = self._row(name, epsilon, clean, seen, scores, valid)
        iou = iou_fields(confusion)
        row = row._replace(seconds=seconds, compile_seconds=compiled, **iou)
        return row, join_valid([score.correct for score in scores], valid), confusion

    def _row(
        self,
        name: str,
        epsilon: float,
        clean: Clean,
        seen: list[AttackResult],
        scores: list[Scores],
        valid: list[np.ndarray],
    ) -> Row:
        """The row of an attack at one ε, but for seconds and mean IoU."""
        named, modes = ATTACKS[name], self._modes(name)
        correct = join_valid([score.correct for score in scores], valid)
        trace = np.concatenate(
            [result.loss_trace[:, mask] for result, mask in zip(seen, valid, strict=True)], axis=1
        )
        routers = None
        if clean.outputs[0].router is not None:
            routers = join_valid([output.router for output in clean.outputs], valid)
        return Row(
            attack=name,
            epsilon=epsilon,
            norm=self.programs.norm,
            robust_accuracy=mean(robust(correct, clean.correct)),
            accuracy_under_attack=mean(correct),
            n=len(correct),
            seed=self.seed,
            steps=named.steps(self.settings),
            restarts=1 if named.from_clean else self.settings.restarts,
            gradient="+".join(modes) if modes[0] else None,
            gradient_evaluations=_mean_count([result.gradients for result in seen], valid),
            seconds=0.0,
            compile_seconds=0.0,
            loss_trace=trace.mean(axis=1, dtype=np.float64).tolist(),
            # What broke a clip has done its work, wherever the gradient then led.
            zero_gradient=None
            if named.black_box
            else mean(correct * join_valid([result.zero_gradient for result in seen], valid)),
            **summarize_isolated(named.component, clean.correct, scores, valid),
            **summarize_routing(routers, scores, valid),
            **summarize_lipschitz([score.lipschitz for score in scores], valid),
            measures=mean_measures([score.measures for score in scores], valid),
        )

    def cascade(
        self, name: str, epsilon: float, clean: Clean
    ) -> tuple[Row, np.ndarray, np.ndarray | None]:
        """Runs a cascade at one ε; as `attack`, and adds its rows to `stages`."""
        n = len(clean.correct)
        parts = parts_of(name, self.cascades)
        compiled = sum(_seconds_of(self.programs, part) for part in set(parts))

        cascading = self._cascading(name, epsilon, clean)
        without = clean.correct, clean.confusion, clean.kept
        found = cascading.run(name, self.cascades[name], epsilon, *without)
        self.kept[name, epsilon] = compact(found.kept)
        self.done += len(clean.outputs) - 1
        self._report(self._what(name, epsilon))
        row = Row(
            attack=name,
            epsilon=epsilon,
            norm=self.programs.norm,
            robust_accuracy=mean(found.correct),
            accuracy_under_attack=mean(found.correct),
            n=n,
            seed=self.seed,
            steps=None,
            restarts=None,
            gradient_evaluations=sum(stage.gradient_evaluations for stage in found.stages) / n,
            seconds=sum(stage.seconds for stage in found.stages),
            compile_seconds=sum(_seconds_of(self.programs, part) for part in set(parts)) - compiled,
            zero_gradient=found.zero_gradient,
            gradient="+".join(self.gradients)
            if any(self._modes(part)[0] for part in parts)
            else None,
            **iou_fields(found.confusion),
        )
        return row, found.correct, found.confusion

    def entries(self, name: str, epsilon: float, clean: Clean) -> list[str]:
        """The first parts of all keys that results of an attack or a cascade have in a journal."""
        if name not in self.cascades:
            return [self._entry(name, epsilon)]
        return self._cascading(name, epsilon, clean).entries(name, self.cascades[name], epsilon)

    def _entry(self, name: str, epsilon: float) -> str:
        modes, made = self._modes(name), self._mark(name, epsilon)
        return entry(name, self.settings, epsilon, modes, self.seed, made)

    def _cascading(self, name: str, epsilon: float, clean: Clean) -> Cascading:
        def say(row: StageRow) -> None:
            self.stages.append(row)
            self.say(stage_line(row, self.programs.norm))

        if self.clips is None:
            self.clips = StandingClips(
                self.batches,
                clean.batch_indices,
                clean.batch_valid,
                compiled=self.programs.batch_sizes,
            )
        return Cascading(
            self.programs,
            self.params,
            self.clips,
            self.settings,
            self.seed,
            self.gradients,
            self.journal,
            self._keep(name, epsilon),
            say,
            lambda attack, left: self.begin(f"{self._what(name, epsilon)}: {attack} on {left}"),
            clean.logits[0].shape[-1],
            self._mark(name, epsilon),
            self._line(epsilon),
        )

    def _line(self, epsilon: float) -> Line | None:
        """The attack that runs now, as candidates know it; None where nobody is shown."""
        # Lines are numbered from the clean one on, each when it is done.
        return self.candidates and Line(self.candidates, 1 + len(self.kept), epsilon)

    def keep_examples(self, name: str, epsilon: float, plan: list[str], clean: Clean) -> None:
        """Begins the folder of an attack's clips, or goes on; `plan` is `entries` without it."""
        goes_on = any(map(self.journal.holds, self.entries(name, epsilon, clean)))
        self._keep(name, epsilon).begin(plan, goes_on=goes_on)

    def _mark(self, name: str, epsilon: float) -> str | None:
        """The mark of the files that are made with the results; None where there are none."""
        keep = self._keep(name, epsilon)
        return keep and keep.mark

    def _keep(self, name: str, epsilon: float) -> Examples | None:
        return self.examples and Examples(self.examples, name, epsilon, self.programs.norm)

    def _modes(self, name: str) -> tuple[GradientMode | None, ...]:
        """The modes of gradient that an attack runs with; None for one that sees none."""
        if isinstance(self.programs.model, Mixture) and ATTACKS[name].sees_routing:
            return self.gradients
        return (None,)

    def _on_batch(self, name, epsilon, clean, position, places, batch, keep=None):
        """Attacks a batch; returns what it finds, its seconds, and the candidates' clips."""
        calls, once = ATTACKS[name].calls(self.settings)
        tries = [
            (dataclasses.replace(once, gradient=mode or once.gradient), call)
            for mode, call in itertools.product(self._modes(name), range(calls))
        ]
        outputs = clean.outputs[position]
        if outputs.logits is None:
            outputs, _ = self.programs.clean(self.params, batch)
        wanted = np.zeros(0, int)
        if keep:
            wanted = np.arange(len(batch["valid"]))
        elif self.candidates:
            wanted = np.flatnonzero(batch["valid"])[self.candidates.rows(places)]
        *found, clips = self._try(name, epsilon, batch, outputs, tries, wanted)
        if keep:
            keep(str(position), batch, clips, found[1].correct)
        at = lambda rows: clips[np.searchsorted(wanted, rows)]  # noqa: E731
        pairs = {}
        if self.candidates:
            pairs = self.candidates.pairs(places, batch, at, found[0].step_sizes)
        found[0] = found[0]._replace(step_sizes=None)  # nobody else needs them: no journal has any
        return tuple(found), pairs

    def _again(self, on_batch: Callable, position: int) -> dict[int, Pair]:
        """The clips of a batch that a journal recalled."""
        self.begin("examples to show")
        batches = self.batches()
        if hasattr(batches, "at"):
            return on_batch(next(iter(batches.at([position]))))[1]
        return on_batch(next(itertools.islice(batches, position, None)))[1]

    def _try(self, name, epsilon, batch, clean, tries, wanted):
        """Attacks a batch with each gradient and restart, each scored by itself.

        A greater loss is not always a wrong class. Returns the adversarial clips of `wanted` too.
        """
        tried, clips, seconds = [], [], 0.0
        for settings, restart in tries:
            result, batch_seconds = self.programs.attack(
                name, self.params, batch, epsilon, settings, self.seed, restart
            )
            seconds += batch_seconds
            x_adv = result.x_adv
            score, _ = self.programs.score(self.params, batch, x_adv, clean, epsilon)
            result, score = jax.device_get((result._replace(x_adv=None), score))
            check_attack(result, score, batch, name, epsilon)
            tried.append((result, score))
            clips += [np.asarray(x_adv)[wanted]] if len(wanted) else []
        winner, result, score = strongest(tried)
        return result, score, seconds, pick(clips, winner[wanted]) if clips else None

    def begin(self, what: str) -> None:
        """Tells the person who waits what comes now."""
        if self.progress:
            self.progress(self.done, self.total and max(self.total, self.done), what)

    def _report(self, what: str) -> None:
        self.done += 1
        self.begin(what)

    def _what(self, name: str, epsilon: float) -> str:
        return f"{name} ε = {format_epsilon(epsilon, self.programs.norm)}"


def _mean_count(counts: list[np.ndarray], valid: list[np.ndarray]) -> float:
    """The mean over valid clips of a count that every batch has one of."""
    clips = [mask.sum() for mask in valid]
    return float(np.average([float(count) for count in counts], weights=clips))


def parts_of(name: str, cascades: Mapping[str, Cascade] = CASCADES) -> list[str]:
    """The attacks of a cascade, or the attack itself."""
    return [stage.attack for stage in cascades[name].stages] if name in cascades else [name]


def _seconds_of(programs: Programs, name: str) -> float:
    return programs.compile_seconds.get(name, 0.0)
