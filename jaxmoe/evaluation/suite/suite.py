"""`evaluate_suite`: a model under several attacks at several ε, one row each, and their worst case.

A sample is robust only if it is right when clean and survives every attack. A non-finite number is
an error, not a survived attack. Axes: N = valid clips, B = batch, M = experts.
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmoe.attacks import build_attack, canonical_name
from jaxmoe.attacks.attack import Model
from jaxmoe.attacks.cascade import CASCADES, Cascade
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.choices import GradientMode, Norm
from jaxmoe.evaluation.diagnostics.gradient_masking import CHECKS, masking_checks
from jaxmoe.evaluation.engine.candidates import Candidates
from jaxmoe.evaluation.engine.guards import as_epsilons, check_arguments
from jaxmoe.evaluation.engine.journal import Journal, model_digest
from jaxmoe.evaluation.engine.programs import Programs, put_params
from jaxmoe.evaluation.engine.rows import (
    CLEAN,
    WORST_CASE,
    Check,
    Row,
    SuiteResult,
    count_labels,
    notes_on_labels,
    notes_on_losses,
    robust,
)
from jaxmoe.evaluation.engine.scoring import Metric
from jaxmoe.evaluation.engine.shown import Shown, show
from jaxmoe.evaluation.engine.summary import iou_fields, mean
from jaxmoe.evaluation.engine.verdict import tell_of_masking, tell_of_model
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.evaluation.measures.specialization import columns_of, row_fields, specialization
from jaxmoe.evaluation.suite.passes import BatchesFactory, Clean, Passes, Progress, parts_of
from jaxmoe.threat import ThreatModel


def evaluate_suite(
    mixture: Model,
    params: Any,
    batches_factory: BatchesFactory,
    *,
    attacks: Sequence[str],
    epsilons: Sequence[float],
    settings: AttackSettings = AttackSettings(),
    gradients: Sequence[GradientMode] | None = None,
    norm: Norm = "linf",
    seed: int = 0,
    metric: Metric = accuracy,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    programs: Programs | None = None,
    probe_batches: int = 2,
    journal: str | os.PathLike | None = None,
    examples: str | os.PathLike | None = None,
    checks: bool = True,
    keep: Callable[[SuiteResult], None] | None = None,
    columns: Mapping[str, Mapping[int, str]] | None = None,
    measures: Sequence[str] = (),
    cascades: Mapping[str, Cascade] | None = None,
    shown: int = 12,
) -> SuiteResult:
    """Runs the clean clips, each attack at each ε, and checks for masked gradients.

    Args:
      mixture: a mixture, or a plain classifier `(params, x) -> logits`, which general attacks take
        and whose rows have no routing.
      params: its params.
      batches_factory: makes one pass of dicts with `clip` (uint8 grey levels, or floats in [0, 1],
        `[B, T, H, W, C]`), `label` `[B]`, or `[B, …]` with one for each position of a dense task
        and void ones below 0, `index` `[B]` (the clip's own number ≥ 0) and `valid`
        `[B]` (False for padding). Called once for each attack and ε, and once for all cascades
        where what stands fits the memory; beyond it a pass that has `at(positions)`, as the
        commands' loader, is read by its batches' positions.
      attacks: names of `attacks.ATTACKS` or `attacks.CASCADES`.
      epsilons: radii in pixel units, 8/255 for 8 grey levels.
      settings: numbers of all attacks. Steps and restarts are as given; one-step attacks take one.
      gradients: modes of a mixture's gradient (`AttackSettings.gradient`). An attack that sees it
        runs with each, and a robust clip survives all; None is the mode of `settings`.
      norm: `"linf"` or `"l2"`.
      seed: of the random starts, which depend on it, the attack and the clip's index alone.
      metric: `(logits, labels) -> [B]`, 1 for right and 0 for wrong.
      progress: called after every batch.
      say: given a line after each attack of a cascade, on what the journal held, and for each sign
        that figures are not what they seem; these are warnings (`EvaluationWarning`) without it.
      programs: compiled programs of an earlier suite of this model, to use again.
      probe_batches: how many batches of clips, drawn by class, the checks' own attacks see (noise,
        PGD at ε = 1, the router's gradient); 0 leaves these checks out.
      journal: a file that keeps the result of every batch, so that an evaluation that was stopped
        goes on from it, with more attacks, ε or other numbers of some too; one of another model or
        data is put aside until that is evaluated again. It is left for the caller to remove.
      examples: a folder for adversarial clips, `ATTACK-NORM-EPSILON/NUMBER.npz` for each batch,
        with `x_adv` (float32 pixels), `label`, `index` and `correct`.
      checks: whether to check for masked gradients; without, the result has no checks.
      keep: given all that was found so far whenever a row is done, without checks; the last time,
        with the worst cases, before the checks begin.
      columns: other labels of the clips, by name and by a clip's index; a mixture's routes are
        compared with them (`specialization`).
      measures: names of `MEASURES`, whose means the rows have too, but for cascades' and the worst
        case's; `programs` of an earlier suite must have the same.
      cascades: more cascades by name, beside `CASCADES`.
      shown: whole adversarial examples that the result has at most, a quarter each of those that
        the smallest ε breaks, confident failures, survivors, and others (`SuiteResult.shown`).

    Raises:
      ValueError: an unknown attack, an ε or `shown` that is negative, no valid clip, batches that
        differ from pass to pass, `programs` of another model, or an attack on parts that the model
        lacks.
      NonFiniteGradient: an attack's loss or gradient was not finite on a valid clip.
      NonFiniteError: the model's own outputs were not.
      ThreatViolation: an attack returned a clip outside the threat model.
    """
    check_arguments(attacks, batches_factory)
    if shown < 0:
        raise ValueError(f"shown: {shown}; expected 0, for none, or more")
    known = {**CASCADES, **(cascades or {})}
    attacks = _canonical_names(attacks, known)
    epsilons = as_epsilons(epsilons)
    settings = settings.of_judges()
    gradients = tuple(dict.fromkeys(gradients or (settings.gradient,)))
    parts = [part for name in attacks for part in parts_of(name, known)]
    _check_attacks(parts, mixture, norm, epsilons, settings, gradients)
    programs = programs or Programs(mixture, norm, metric, measures)
    programs.check(mixture, norm, metric).check_measures(measures)
    params = put_params(params)
    run = Passes(
        programs, params, batches_factory, settings, gradients, seed, progress, cascades=known
    )
    passes = 1 + len(attacks) * len(epsilons)
    clean = run.clean(passes, probe_batches if checks else 0, parts, checks=checks)
    tell_of_model(clean.checks, say)
    drawn = clean.label, clean.correct, clean.shape[1:], shown if attacks else 0, seed
    run.candidates = Candidates(*drawn)
    wanted = list(itertools.product(attacks, epsilons))
    notes = _begin(run, clean, wanted, parts, journal, examples, say)
    table = _Table(run, clean, notes, columns)
    keep = keep or (lambda result: None)
    keep(table.found())
    for name, epsilon in wanted:
        table.add(name, epsilon)
        keep(table.found())
    if attacks:
        table.add_worst_cases(epsilons)
        table.show()
        keep(table.found())
    if not checks:
        return table.found()
    run.begin(CHECKS)
    own = programs, params, clean.probes, table.rows, table.correct, settings, seed, run.stages
    tell = progress or (lambda done, total, what: None)
    masking = masking_checks(*own, tell, clean.probed, known)
    tell_of_masking(masking, say)
    return table.found(masking)


def _check_attacks(
    parts: Sequence[str],
    mixture: Model,
    norm: Norm,
    epsilons: Sequence[float],
    settings: AttackSettings,
    gradients: Sequence[GradientMode],
) -> None:
    """Builds every attack once, which says what cannot be built before anything compiles."""
    for epsilon, mode in itertools.product(epsilons, gradients):
        threat, own = ThreatModel(norm, epsilon), dataclasses.replace(settings, gradient=mode)
        for part in parts:
            build_attack(part, mixture, threat, own)


def _begin(
    run: Passes,
    clean: Clean,
    wanted: Sequence[tuple[str, float]],
    parts: Sequence[str],
    journal: str | os.PathLike | None,
    examples: str | os.PathLike | None,
    say: Callable[[str], None] | None,
) -> list[str]:
    """Opens the journal and the folder of examples; returns what a reader has to know."""
    if journal is not None:
        own = model_digest(run.programs, run.params, clean.digest)
        run.journal = Journal(journal, own, clean.logits)
    entries = {key: run.entries(*key, clean) for key in wanted}
    if examples:
        run.examples = pathlib.Path(examples)
        for key, plan in entries.items():
            run.keep_examples(*key, plan, clean)
        entries = {key: run.entries(*key, clean) for key in wanted}
    run.say = say or run.say
    classes = clean.logits[0].shape[-1]
    notes = notes_on_losses(parts, classes)
    if clean.margin is not None:
        notes += notes_on_labels(count_labels(clean.label, classes))
    for line in notes:
        run.say(line)
    if note := run.journal.note({*itertools.chain(*entries.values())}):
        run.say(note)
    return notes


class _Table:
    """The rows of a suite as they come, and what they were made from."""

    def __init__(
        self,
        run: Passes,
        clean: Clean,
        notes: Sequence[str],
        columns: Mapping[str, Mapping[int, str]] | None,
    ):
        self.run, self.clean, self.notes, self.measured = run, clean, tuple(notes), None
        if clean.parts is not None:
            known = columns_of(clean.index, columns)
            self.measured = specialization(clean.parts, clean.correct, clean.label, known)
        self.rows = [clean.row._replace(**row_fields(self.measured))]
        self.correct = {(CLEAN, 0.0): clean.correct}
        self.confusion = {(CLEAN, 0.0): clean.confusion}
        self.shown: Shown | None = None

    def add(self, name: str, epsilon: float) -> None:
        """Runs an attack or a cascade at an ε, and adds its row."""
        attack = self.run.cascade if name in self.run.cascades else self.run.attack
        row, correct, confusion = attack(name, epsilon, self.clean)
        self.correct[name, epsilon], self.confusion[name, epsilon] = correct, confusion
        self.rows.append(row)

    def add_worst_cases(self, epsilons: Sequence[float]) -> None:
        """Adds a row for each ε: right under every attack."""
        own = self.rows, self.correct, self.confusion
        self.rows += [_worst_case(*own, epsilon) for epsilon in epsilons]

    def show(self) -> None:
        """Chooses the examples that are shown whole."""
        run, clean = self.run, self.clean
        chosen = run.candidates.choose()
        made = tuple(part for key in run.kept for part in run.entries(*key, clean))
        self.shown = run.journal.recall(
            ("shown", made, tuple((one.place, one.line, one.why) for one in chosen)),
            lambda: show(chosen, run.programs, run.params, clean.label, clean.shape),
        )
        run.candidates = None

    def found(self, masking: tuple[Check, ...] = ()) -> SuiteResult:
        """Returns all that was found so far."""
        clean, programs = self.clean, self.run.programs
        return SuiteResult(
            tuple(self.rows),
            dict(self.correct),
            clean.index,
            clean.label,
            masking,
            dict(programs.compilations),
            dict(programs.compile_seconds),
            tuple(self.run.stages),
            self.notes,
            None if clean.confusion is None else dict(self.confusion),
            None if clean.margin is None else {(CLEAN, 0.0): clean.margin, **self.run.margins},
            clean.checks,
            self.measured,
            {(CLEAN, 0.0): clean.kept, **self.run.kept},
            self.shown,
        )


def _worst_case(rows: list[Row], correct: dict, confusion: dict, epsilon: float) -> Row:
    """Right when clean and under every attack up to `epsilon`: the AND clip by clip.

    What a smaller ball holds is in a larger one too. Of dense labels it is the least share of right
    pixels under one attack, image by image, and the mean IoU is that of these attacks' pixels.
    """
    tried = [key for key in correct if key[1] <= epsilon and key[0] != CLEAN]
    under_attack = np.minimum.reduce([correct[key] for key in tried])
    worst = None
    if confusion[CLEAN, 0.0] is not None:
        tried = [(CLEAN, 0.0), *tried]
        least = np.argmin([correct[key] for key in tried], axis=0)
        worst = np.stack([confusion[key] for key in tried])[least, np.arange(len(least))]
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
        **iou_fields(worst),
    )


def _canonical_names(attacks: Sequence[str], known: Mapping[str, Cascade]) -> tuple[str, ...]:
    spelt = (name if name in known else canonical_name(name) for name in attacks)
    return tuple(dict.fromkeys(spelt))
