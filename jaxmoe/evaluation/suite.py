"""`evaluate_suite`: a model under several attacks at several ε, one row each, and their worst case.

A sample is robust only if it is right when clean and survives every attack. A non-finite number is
an error, not a survived attack. Axes: N = valid clips, B = batch, M = experts.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jaxmoe.attacks import AttackResult, build_attack, canonical_name, find_attack
from jaxmoe.attacks.attack import Model
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.evaluation.guards import (
    DIFFERENT_PASS,
    check_attack,
    check_finite_outputs,
    check_same_pass,
)
from jaxmoe.evaluation.masking import masking_checks
from jaxmoe.evaluation.metrics import accuracy
from jaxmoe.evaluation.programs import OUTPUTS, Programs
from jaxmoe.evaluation.rows import CLEAN, WORST_CASE, Row, SuiteResult, robust
from jaxmoe.evaluation.scoring import Metric, Outputs, Scores
from jaxmoe.evaluation.summary import (
    join_valid,
    mean,
    summarize_isolated,
    summarize_lipschitz,
    summarize_routing,
)
from jaxmoe.threat import Norm, ThreatModel

BatchesFactory = Callable[[], Iterable[dict[str, np.ndarray]]]
"""Each call is one pass over the same clips, in the same order and batches."""
Progress = Callable[[int, int, str], None]
"""`(batches done, batches in all, what runs)`; the total is known after the clean pass."""


def evaluate_suite(
    mixture: Model,
    params: Any,
    batches_factory: BatchesFactory,
    *,
    attacks: Sequence[str],
    epsilons: Sequence[float],
    settings: AttackSettings = AttackSettings(),
    norm: Norm = "linf",
    seed: int = 0,
    metric: Metric = accuracy,
    progress: Progress | None = None,
    programs: Programs | None = None,
    probe_batches: int = 2,
) -> SuiteResult:
    """Runs the clean clips, each attack at each ε, and checks for masked gradients.

    Args:
      mixture: a mixture, or a plain classifier `(params, x) -> logits`, which general attacks take
        and whose rows have no routing.
      params: its params.
      batches_factory: makes one pass of dicts with `clip` (uint8 grey levels, or floats in [0, 1],
        `[B, T, H, W, C]`), `label` `[B]`, `index` `[B]` (the clip's own number ≥ 0) and `valid`
        `[B]` (False for padding). Called once for each row.
      attacks: names of `attacks.ATTACKS`.
      epsilons: radii in pixel units, 8/255 for 8 grey levels.
      settings: numbers of all attacks. Steps and restarts are as given; one-step attacks take one.
      norm: `"linf"` or `"l2"`.
      seed: of the random starts, which depend on it, the attack and the clip's index alone.
      metric: `(logits, labels) -> [B]`, 1 for right and 0 for wrong.
      progress: called after every batch.
      programs: compiled programs of an earlier suite of this model, to use again.
      probe_batches: batches that the checks' own attacks see (noise, PGD at ε = 1, the router's
        gradient); 0 leaves these checks out.

    Raises:
      ValueError: an unknown attack, an ε that is negative, no valid clip, batches that differ from
        pass to pass, `programs` of another model, or an attack on parts that the model lacks.
      NonFiniteGradient: an attack's loss or gradient was not finite on a valid clip.
      NonFiniteError: the model's own outputs were not.
      ThreatViolation: an attack returned a clip outside the threat model.
    """
    attacks = _canonical_names(attacks)
    epsilons = tuple(dict.fromkeys(float(epsilon) for epsilon in epsilons))
    if not epsilons:
        raise ValueError("epsilons: none given; expected at least one ε ≥ 0")
    for epsilon in epsilons:
        threat = ThreatModel(norm, epsilon)
        for name in attacks:
            build_attack(name, mixture, threat, settings)
    programs = programs or Programs(mixture, norm, metric)
    if (programs.model, programs.norm, programs.metric) != (mixture, norm, metric):
        raise ValueError("programs: compiled for another model, norm or metric")
    run = _Run(programs, params, batches_factory, settings, seed, progress)
    clean = run.clean(1 + len(attacks) * len(epsilons), probe_batches)
    rows, correct = [clean.row], {(CLEAN, 0.0): clean.correct}
    for name in attacks:
        for epsilon in epsilons:
            row, under_attack = run.attack(name, epsilon, clean)
            rows.append(row)
            correct[name, epsilon] = under_attack
    if attacks:
        rows += [_worst_case(rows, correct, epsilon) for epsilon in epsilons]
    checks = masking_checks(programs, params, clean.probes, rows, correct, settings, seed)
    return SuiteResult(
        tuple(rows),
        correct,
        clean.index,
        clean.label,
        checks,
        dict(programs.compilations),
        dict(programs.compile_seconds),
    )


@dataclasses.dataclass(frozen=True)
class _Clean:
    """The clean pass: its row, and what every later pass compares with."""

    row: Row
    correct: np.ndarray  # [N]
    index: np.ndarray  # [N]
    label: np.ndarray
    outputs: list[Outputs]  # of each batch, padding included, in host memory
    batch_indices: list[np.ndarray]
    probes: list[dict]  # the first batches, for the checks of masked gradients


@dataclasses.dataclass
class _Run:
    """What all passes share."""

    programs: Programs
    params: Any
    batches: BatchesFactory
    settings: AttackSettings
    seed: int
    progress: Progress | None
    done: int = 0
    total: int = 0

    def clean(self, passes: int, probe_batches: int) -> _Clean:
        """Runs the clean clips; `passes` is how many there will be with this one."""
        outputs, batches, probes, seconds = [], [], [], 0.0
        compiled = _seconds_of(self.programs, OUTPUTS)
        for batch in self.batches():
            result, batch_seconds = self.programs.clean(self.params, batch)
            result = jax.device_get(result)
            check_finite_outputs(result.finite, batch, CLEAN, 0.0)
            outputs.append(result)
            batches.append({name: np.asarray(batch[name]) for name in ("index", "label", "valid")})
            if len(probes) < probe_batches:
                probes.append(batch)
            seconds += batch_seconds
            self._report(CLEAN)
        if not any(batch["valid"].any() for batch in batches):
            raise ValueError("batches: no valid clip")
        self.total = passes * len(batches)
        kept = {
            name: np.concatenate([batch[name][batch["valid"]] for batch in batches])
            for name in ("index", "label")
        }
        valid = [batch["valid"] for batch in batches]
        correct = join_valid([output.correct for output in outputs], valid)
        router = None
        if outputs[0].router is not None:
            router = join_valid([output.router for output in outputs], valid)
        row = Row(
            attack=CLEAN,
            epsilon=0.0,
            norm=self.programs.norm,
            robust_accuracy=mean(correct),
            accuracy_under_attack=mean(correct),
            n=len(correct),
            seed=self.seed,
            steps=None,
            restarts=None,
            gradient_evaluations=0,
            seconds=seconds,
            compile_seconds=_seconds_of(self.programs, OUTPUTS) - compiled,
            **summarize_routing(router, None, valid),
        )
        indices = [batch["index"] for batch in batches]
        return _Clean(row, correct, kept["index"], kept["label"], outputs, indices, probes)

    def attack(self, name: str, epsilon: float, clean: _Clean) -> tuple[Row, np.ndarray]:
        """Runs one attack at one ε; returns its row, and what was right under it, [N]."""
        named = find_attack(name)
        restarts = 1 if named.from_clean else self.settings.restarts
        # One restart a call, each scored by itself: a greater loss is not always a wrong class.
        once = dataclasses.replace(self.settings, restarts=1)
        scores, valid, seen, seconds = [], [], [], 0.0
        compiled = _seconds_of(self.programs, name)
        for position, batch in enumerate(self.batches()):
            check_same_pass(batch, clean.batch_indices, position)
            tries = []
            for restart in range(restarts):
                result, batch_seconds = self.programs.attack(
                    name, self.params, batch, epsilon, once, self.seed, restart
                )
                seconds += batch_seconds
                score, _ = self.programs.score(
                    self.params, batch, result.x_adv, clean.outputs[position], epsilon
                )
                result, score = jax.device_get((result._replace(x_adv=None), score))
                check_attack(result, score, batch, name, epsilon)
                tries.append((result, score))
            result, score = _strongest(tries)
            scores.append(score)
            valid.append(np.asarray(batch["valid"]))
            seen.append(result)
            self._report(f"{name} ε = {epsilon:.4g}")
        if len(scores) != len(clean.outputs):
            raise ValueError(DIFFERENT_PASS.format(len(scores)))
        correct = join_valid([score.correct for score in scores], valid)
        trace = np.concatenate(
            [result.loss_trace[:, mask] for result, mask in zip(seen, valid, strict=True)], axis=1
        )
        routers = None
        if clean.outputs[0].router is not None:
            routers = join_valid([output.router for output in clean.outputs], valid)
        row = Row(
            attack=name,
            epsilon=epsilon,
            norm=self.programs.norm,
            robust_accuracy=mean(robust(correct, clean.correct)),
            accuracy_under_attack=mean(correct),
            n=len(correct),
            seed=self.seed,
            steps=named.steps(self.settings),
            restarts=restarts,
            gradient_evaluations=int(seen[0].gradients),
            seconds=seconds,
            compile_seconds=_seconds_of(self.programs, name) - compiled,
            loss_trace=trace.mean(axis=1, dtype=np.float64).tolist(),
            zero_gradient=mean(join_valid([result.zero_gradient for result in seen], valid)),
            **summarize_isolated(named.component, clean.correct, scores, valid),
            **summarize_routing(routers, scores, valid),
            **summarize_lipschitz([score.lipschitz for score in scores], valid),
        )
        return row, correct

    def _report(self, what: str) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, max(self.total, self.done), what)


def _strongest(tries: list[tuple[AttackResult, Scores]]) -> tuple[AttackResult, Scores]:
    """Clip by clip the scores of the restart that did most harm; the traces of all restarts."""
    results, scores = zip(*tries, strict=True)
    correct = np.stack([score.correct for score in scores])
    loss = np.stack([result.loss for result in results])
    winner = np.lexsort((-loss, correct), axis=0)[0]  # least correct, then the greatest loss
    clips = np.arange(correct.shape[1])
    score = jax.tree.map(lambda *leaves: np.stack(leaves)[winner, clips], *scores)
    result = results[0]._replace(
        loss=loss[winner, clips],
        loss_trace=np.concatenate([result.loss_trace for result in results]),
        gradients=np.sum([result.gradients for result in results]),
        zero_gradient=np.mean([result.zero_gradient for result in results], axis=0),
        finite=np.all([result.finite for result in results], axis=0),
    )
    return result, score


def _worst_case(rows: list[Row], correct: dict, epsilon: float) -> Row:
    """Right when clean and under every attack at `epsilon`: the AND clip by clip."""
    under_attack = np.minimum.reduce(
        [right for (name, radius), right in correct.items() if radius == epsilon and name != CLEAN]
    )
    attacked = [row for row in rows if row.attack != CLEAN and row.epsilon == epsilon]
    return Row(
        attack=WORST_CASE,
        epsilon=epsilon,
        norm=rows[0].norm,
        robust_accuracy=mean(robust(under_attack, correct[CLEAN, 0.0])),
        accuracy_under_attack=mean(under_attack),
        n=rows[0].n,
        seed=rows[0].seed,
        steps=None,
        restarts=None,
        gradient_evaluations=sum(row.gradient_evaluations for row in attacked),
        seconds=sum(row.seconds for row in attacked),
        compile_seconds=sum(row.compile_seconds for row in attacked),
    )


def _canonical_names(attacks: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(canonical_name(name) for name in attacks))


def _seconds_of(programs: Programs, name: str) -> float:
    return programs.compile_seconds.get(name, 0.0)
