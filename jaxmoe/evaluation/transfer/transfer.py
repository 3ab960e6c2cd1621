"""The transfer matrix: clips made on one model, scored on every other.

On the diagonal the attack saw the model that it is scored on: a white box. Elsewhere it is a black
box that had a substitute. Source: Papernot et al. 2016 (https://arxiv.org/abs/1605.07277).

Axes: N = valid clips, B = batch.
"""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import build_attack, canonical_name, find_attack
from jaxmoe.attacks.attack import Model
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.attacks.universal import Delta, universal_attack
from jaxmoe.choices import Norm
from jaxmoe.evaluation.engine.guards import (
    DIFFERENT_PASS,
    as_epsilons,
    check_arguments,
    check_attack,
    check_same_pass,
)
from jaxmoe.evaluation.engine.journal import Journal, batch_digest, entry, model_digest
from jaxmoe.evaluation.engine.programs import Programs, inputs_of, on_device
from jaxmoe.evaluation.engine.rows import CLEAN, Check, notes_on_labels
from jaxmoe.evaluation.engine.scoring import Metric
from jaxmoe.evaluation.engine.verdict import tell
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.evaluation.suite.clean_pass import CleanPass
from jaxmoe.evaluation.suite.passes import BatchesFactory, Progress
from jaxmoe.evaluation.transfer.transfer_result import (
    ALL_OTHERS,
    TransferResult,
    flags_of_targets,
)
from jaxmoe.evaluation.transfer.transfer_scores import Score, all_others, join_scores, least, row_of
from jaxmoe.evaluation.transfer.universal import UNIVERSAL, fit_named
from jaxmoe.files import code_digest
from jaxmoe.spelling import did_you_mean
from jaxmoe.threat import ThreatModel, format_epsilon

Models = Mapping[str, tuple[Model, Any]]
"""Models with their params, by name."""


def transfer_matrix(
    sources: Models,
    targets: Models,
    batches_factory: BatchesFactory,
    *,
    attacks: Sequence[str],
    epsilons: Sequence[float],
    settings: AttackSettings = AttackSettings(),
    norm: Norm = "linf",
    seed: int = 0,
    training_batches: Mapping[str, BatchesFactory] | None = None,
    epochs: int = 10,
    metric: Metric = accuracy,
    journal: str | os.PathLike | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> TransferResult:
    """Makes adversarial clips once on each source and scores them on each target.

    A clip counts as right only if no start and no target breaks it; of the attacks with an attempt
    for each expert, the attempt that did most to the source counts. Attacks on a mixture's parts
    are made on the source's parts.

    Args:
      sources: models to make clips on.
      targets: models to score; one that is also a source has the same name in both.
      batches_factory: test clips, as for `evaluate_suite`; called once for the clean clips and once
        for each source, attack and ε.
      attacks: names of `attacks.ATTACKS`, "universal" and "universal-class".
      epsilons: radii in pixel units.
      settings: numbers of all attacks.
      norm: `"linf"` or `"l2"`.
      seed: of the random starts.
      training_batches: for universal attacks, passes over the training clips by source.
      epochs: passes over these.
      metric: `(logits, labels) -> [B]`, 1 for right and 0 for wrong.
      journal: as for `evaluate_suite`.
      progress: called before and after every batch.
      say: given a line on what the journal held, and for each sign that a target's figures are not
        what they seem; these are warnings (`EvaluationWarning`) without it.

    Returns:
      For each attack and ε, the rows of each source and, where a target has a source other than
      itself, those of the source "all others".

    Raises:
      ValueError: no source, target, attack or ε; an unknown attack; an ε that is negative; an
        attack on parts that a source lacks; no training clips for a universal attack; a name that
        means two models; no valid clip; batches that differ from pass to pass.
      NonFiniteGradient: an attack's loss or gradient was not finite on a valid clip.
      NonFiniteError: a target's outputs were not.
      ThreatViolation: an attack returned a clip outside the threat model.
    """
    check_arguments(attacks, batches_factory)
    attacks = tuple(dict.fromkeys(transfer_name(name) for name in attacks))
    epsilons = as_epsilons(epsilons)
    for field, given in (
        ("sources", sources),
        ("targets", targets),
        ("attacks", attacks),
    ):
        if not given:
            raise ValueError(f"{field}: none given; expected at least one")
    training = training_batches or {}
    _check_models(sources, targets)
    _check_attacks(sources, attacks, [ThreatModel(norm, e) for e in epsilons], settings, training)
    sources, targets = on_device(sources, targets)
    models = [model for model, _ in (*sources.values(), *targets.values())]
    programs = {model: Programs(model, norm, metric) for model in models}
    run = _Run(programs, targets, batches_factory, settings.of_judges(), seed, epochs, progress)
    clean = run.clean(attacks, 1 + len(sources) * len(attacks) * len(epsilons))
    notes = notes_on_labels(clean.counts) if clean.counts is not None else []
    for line in notes:
        (say or (lambda line: None))(line)
    tell(flags_of_targets(clean.checks), say)
    if journal is not None:
        run.journal = Journal(journal, f"{code_digest()} {clean.digest} {norm} {metric!r}")
        for name, (model, params) in {**sources, **targets}.items():
            own = model_digest(programs[model], params)
            run.names[name] = run.journal.model(own, clean.logits.get(name, ()))
        wanted = {
            run.entry(attack, source, epsilon, training.get(source))
            for attack, source, epsilon in itertools.product(attacks, sources, epsilons)
        }
        note = run.journal.note(wanted)
        if say and note:
            say(note)
    scores = {}
    for attack in attacks:
        for epsilon in epsilons:
            for source, model in sources.items():
                found = run.attack(source, model, attack, epsilon, clean, training.get(source))
                for target, score in found.items():
                    scores[source, target, attack, epsilon] = score
            scores |= all_others(scores, sources, targets, attack, epsilon)
    rows = [row_of(key, score, clean.scores[key[1]], norm, seed) for key, score in scores.items()]
    return TransferResult(
        tuple(rows),
        {key: score.correct for key, score in scores.items()},
        {target: score.correct for target, score in clean.scores.items()},
        clean.index,
        tuple(notes),
        clean.checks,
    )


def transfer_name(name: str) -> str:
    """The name of an attack as `transfer_matrix` knows it, spelt as `canonical_name` allows.

    Raises:
      ValueError: no such attack; the message has the nearest name.
    """
    key = name.lower().replace("_", "-")
    if key in UNIVERSAL:
        return key
    if hint := did_you_mean(key, UNIVERSAL, cutoff=0.7):
        raise ValueError(f"attack: {name!r} is no attack{hint}")
    return canonical_name(name)


@dataclasses.dataclass(frozen=True)
class _Clean:
    """The clean pass, and what every later pass compares with."""

    scores: dict[str, Score]  # by target
    index: np.ndarray  # [N]
    batch_indices: list[np.ndarray]  # padding included
    logits: dict[str, list[np.ndarray]]  # of each batch, by target
    digest: str  # of the clips
    counts: np.ndarray | None  # labels of each class, where they are classes
    checks: dict[str, tuple[Check, ...]]  # of each target itself


@dataclasses.dataclass
class _Run:
    """The passes of a transfer matrix, with everything that they share."""

    programs: dict[Model, Programs]  # models that are the same compile once
    targets: Models
    batches: BatchesFactory
    settings: AttackSettings
    seed: int
    epochs: int
    progress: Progress | None
    journal: Journal = dataclasses.field(default_factory=lambda: Journal(None, ""))
    digests: dict[int, str] = dataclasses.field(default_factory=dict)  # by the `id` of a factory
    names: dict[str, str] = dataclasses.field(default_factory=dict)  # of models in the journal
    classes: int = 0
    done: int = 0
    total: int = 0

    def clean(self, attacks: Sequence[str], passes: int) -> _Clean:
        """Scores the clean clips; `passes` is how many there will be with this one."""
        seen = {
            target: CleanPass(self.programs[model], params, attacks, f"{CLEAN} on {target}")
            for target, (model, params) in self.targets.items()
        }
        for batch in self.batches():
            self._report(CLEAN)
            for target in seen.values():
                target.add(batch)
            self._count(CLEAN)
        for target in seen.values():
            first = target.end()
        self.total, self.classes = passes * len(first.index), first.classes
        scores = {
            target: join_scores(list(map(Score, one.correct, one.confusion)), one.valid)
            for target, one in seen.items()
        }
        return _Clean(
            scores,
            first.of_valid(first.index),
            first.index,
            {target: one.logits for target, one in seen.items()},
            first.digest,
            first.counts,
            {target: one.found() for target, one in seen.items()},
        )

    def attack(
        self,
        source: str,
        model: tuple[Model, Any],
        name: str,
        epsilon: float,
        clean: _Clean,
        training: BatchesFactory | None,
    ) -> dict[str, Score]:
        """Scores each target under the clips that `name` makes on `source`."""
        what = f"{name} of {source} ε = {format_epsilon(epsilon, self.programs[model[0]].norm)}"
        self._report(what)
        own = self.entry(name, source, epsilon, training)
        make = self._maker(own, name, *model, epsilon, training)
        scores, valid = self._nothing_yet(), []
        for position, batch in enumerate(self.batches()):
            check_same_pass(batch, clean.batch_indices, position)

            keys = {target: (own, self.names.get(target, target), position) for target in scores}
            tries = {target: [] for target in scores if keys[target] not in self.journal}
            for result in make(batch) if tries else ():
                facts = jax.device_get(result._replace(x_adv=None))
                for target, seen in tries.items():
                    verdict = self._verify(target, batch, result.x_adv, epsilon)
                    on = f"{name} of {source} on {target}"
                    check_attack(facts, verdict, batch, on, epsilon)
                    seen.append(Score(verdict.correct, verdict.confusion))
            for target, found in scores.items():
                seen = tries.get(target)
                found.append(self.journal.recall(keys[target], lambda seen=seen: least(seen)))
            valid.append(np.asarray(batch["valid"]))
            self._count(what)
        if len(valid) != len(clean.batch_indices):
            raise ValueError(DIFFERENT_PASS.format(len(valid)))
        return {target: join_scores(parts, valid) for target, parts in scores.items()}

    def entry(self, name: str, source: str, epsilon: float, training: BatchesFactory | None) -> str:
        """The first part of all keys that results of an attack on a source have in a journal."""
        made_of = (self._digest(training), self.epochs) if name in UNIVERSAL else ()
        return entry(name, self.settings, epsilon, self.seed, self.names.get(source), *made_of)

    def _maker(
        self,
        own: str,
        name: str,
        model: Model,
        params: Any,
        epsilon: float,
        training: BatchesFactory | None,
    ) -> Callable:
        """`batch -> AttackResults`, one for each attempt, each made when it is asked for.

        Of all starts and targets: what breaks the source least may break a target. `own` is what a
        perturbation's key in the journal begins with.
        """
        programs = self.programs[model]
        if name in UNIVERSAL:
            threat = ThreatModel(programs.norm, epsilon)
            delta = self.journal.recall(
                (own, "perturbation"),
                lambda: jax.device_get(
                    fit_named(
                        name,
                        model,
                        params,
                        training,
                        threat=threat,
                        settings=self.settings,
                        seed=self.seed,
                        epochs=self.epochs,
                    )
                ),
            )
            return lambda batch: [_add(programs, delta, batch, epsilon)]
        attempts = find_attack(name).attempts(self.settings, self.classes)
        numbered = [(once, number) for number, (once, _) in enumerate(attempts)]

        def make(batch):
            for once, number in numbered:
                yield programs.attack(name, params, batch, epsilon, once, self.seed, number)[0]

        return make

    def _digest(self, training: BatchesFactory) -> str:
        """Digests the training clips; sources share them where they have the same function."""
        if id(training) not in self.digests:
            digest = hashlib.sha256()
            for batch in training():
                digest.update(batch_digest(batch))
            self.digests[id(training)] = digest.hexdigest()
        return self.digests[id(training)]

    def _verify(self, target: str, batch: dict, x_adv: jax.Array, epsilon: float) -> Any:
        model, params = self.targets[target]
        return jax.device_get(self.programs[model].verify(params, batch, x_adv, epsilon)[0])

    def _nothing_yet(self) -> dict[str, list[Score]]:
        return {target: [] for target in self.targets}

    def _count(self, what: str) -> None:
        self.done += 1
        self._report(what)

    def _report(self, what: str) -> None:
        if self.progress:
            self.progress(self.done, self.total and max(self.total, self.done), what)


def _add(programs: Programs, delta: Delta, batch: dict, epsilon: float) -> Any:
    def program(delta, x, y, epsilon):
        return universal_attack(delta, ThreatModel(programs.norm, epsilon))(None, None, x, y)

    x, y, _ = inputs_of(batch)
    inputs = delta, x, y, jnp.float32(epsilon)
    return programs.timed("universal", program, *inputs)[0]


def _check_models(sources: Models, targets: Models) -> None:
    for name in (*sources, *targets):
        if name == ALL_OTHERS:
            raise ValueError(f"sources: {name!r} is the name of their worst case; rename the model")
    for name in sources.keys() & targets.keys():
        (model, params), (other, other_params) = sources[name], targets[name]
        if model != other or params is not other_params:
            raise ValueError(f"targets: {name!r} is another model among the sources; rename one")


def _check_attacks(
    sources: Models,
    attacks: Sequence[str],
    threats: Sequence[ThreatModel],
    settings: AttackSettings,
    training: Mapping[str, BatchesFactory],
) -> None:
    for name in attacks:
        for source, (model, _) in sources.items():
            if name not in UNIVERSAL:
                build_attack(name, model, threats[0], settings)
            elif source not in training:
                raise ValueError(
                    f"training_batches: none for {source!r}; {name} is made on training examples"
                )
