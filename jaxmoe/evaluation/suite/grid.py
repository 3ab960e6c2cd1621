"""Attacks over a grid of ε and of their own numbers, many settings in one call of one program.

A grid is folded into the batch: every clip is there once for each setting, with its own ε and
numbers. That is `vmap` over the attack's constructor written out. Under `vmap` itself the sparse
dispatch would copy the experts' params for every setting and run each block for every expert;
folded, a grid fills its blocks better than one setting does.
Axes: P = points of the grid, B = batch, N = valid clips.
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import ATTACKS, build_attack, canonical_name, find_attack
from jaxmoe.attacks.attack import Model
from jaxmoe.attacks.perturb import numbered_keys
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.choices import Norm
from jaxmoe.evaluation.engine.guards import (
    Attacked,
    as_epsilons,
    check_arguments,
    check_attack,
    same_pass,
)
from jaxmoe.evaluation.engine.journal import Journal, entry, model_digest
from jaxmoe.evaluation.engine.programs import (
    Programs,
    as_numbers,
    attack_keys,
    inputs_of,
    put_params,
)
from jaxmoe.evaluation.engine.rows import Check, notes_on_labels, robust
from jaxmoe.evaluation.engine.scoring import Metric, verify
from jaxmoe.evaluation.engine.summary import mean
from jaxmoe.evaluation.engine.verdict import flags_in_short, tell_of_model
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.evaluation.suite.clean_pass import CleanPass
from jaxmoe.parallel import hosts
from jaxmoe.threat import ThreatModel

Batch = dict[str, np.ndarray]

NUMBERS = ("alpha", "temporal_alpha", "decay", "lam", "gamma1", "gamma2")
"""Fields of `AttackSettings` that a grid may have."""


class Point(NamedTuple):
    """One setting of a grid."""

    epsilon: float
    numbers: tuple[float, ...]  # in the order of the grid's names


@dataclasses.dataclass(frozen=True)
class Grid:
    """ε × the values of each number.

    Attributes:
      epsilons: radii in pixel units.
      values: of each number, by its name in `NUMBERS`.

    Raises:
      ValueError: a name that is no number of an attack, no value, or one that no attack takes.
    """

    epsilons: tuple[float, ...]
    values: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "epsilons", as_epsilons(self.epsilons))
        for epsilon in self.epsilons:
            ThreatModel("linf", epsilon)
        for name, values in self.values.items():
            if name not in NUMBERS or not values:
                raise ValueError(f"grid: {name!r} with {values}; expected values of {NUMBERS}")
            for value in values:
                AttackSettings(**{name: value})

    @property
    def points(self) -> list[Point]:
        """All settings, ε last to change."""
        products = itertools.product(self.epsilons, *self.values.values())
        return [Point(epsilon, tuple(numbers)) for epsilon, *numbers in products]


class GridRow(NamedTuple):
    """One attack with one setting."""

    attack: str
    epsilon: float
    numbers: dict[str, float]
    robust_accuracy: float  # 0–1; right when clean and under every start
    accuracy_under_attack: float
    n: int
    seed: int
    steps: int
    restarts: int
    gradient_evaluations: int  # of each clip


class GridResult(NamedTuple):
    """The result of a sweep; `correct[attack]` is [P, N] in the order of the grid's points."""

    rows: tuple[GridRow, ...]
    clean_accuracy: float
    correct: dict[str, np.ndarray]
    compilations: dict[str, int]  # of each attack
    chunks: dict[str, int]  # points that an attack runs at once
    notes: tuple[str, ...] = ()  # what else a reader of the figures has to know
    model_checks: tuple[Check, ...] = ()

    def __repr__(self) -> str:
        """The curves without the arrays, and what the checks flag."""
        curves = "; ".join(
            f"{name} "
            + ", ".join(f"{robust:.1%} at ε = {epsilon:.4g}" for epsilon, robust in curve)
            for name, curve in self.curves().items()
        )
        return (
            f"GridResult(clean {self.clean_accuracy:.1%} of {self.rows[0].n}; {curves}; "
            f"{flags_in_short(self.model_checks)})"
        )

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """For each attack `(ε, robust accuracy)` of its strongest setting there."""
        return {
            name: [
                (epsilon, min(row.robust_accuracy for row in group))
                for epsilon, group in itertools.groupby(
                    sorted((row for row in self.rows if row.attack == name), key=_epsilon),
                    key=_epsilon,
                )
            ]
            for name in dict.fromkeys(row.attack for row in self.rows)
        }


def sweep_grid(
    model: Model,
    params: Any,
    batches_factory: Callable[[], Iterable[dict[str, np.ndarray]]],
    *,
    attacks: Sequence[str],
    grid: Grid,
    settings: AttackSettings = AttackSettings(),
    norm: Norm = "linf",
    seed: int = 0,
    memory: int | None = None,
    metric: Metric = accuracy,
    programs: Programs | None = None,
    journal: str | os.PathLike | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> GridResult:
    """Every attack with every setting of a grid, one compiled program for each attack.

    Args:
      model: a mixture, or a plain classifier `(params, x) -> logits`.
      params: its params.
      batches_factory: as for `evaluate_suite`.
      attacks: names of `attacks.ATTACKS`.
      grid: ε and numbers.
      settings: of what the grid does not say.
      norm: `"linf"` or `"l2"`.
      seed: of the random starts, the same for all settings and those of `evaluate_suite`.
      memory: bytes that a program may take; None is half of the device's.
      metric: `(logits, labels) -> [B]`.
      programs: of an earlier call.
      journal: as for `evaluate_suite`.
      progress: called after every batch with (done, total, what).
      say: given a line on what the journal held, and for each sign that the figures are not what
        they seem; these are warnings (`EvaluationWarning`) without it.

    Raises:
      ValueError: an unknown attack, a cascade, or no valid clip.
      NonFiniteError, ThreatViolation: as `evaluate_suite`.
    """
    check_arguments(attacks, batches_factory)
    names = list(dict.fromkeys(canonical_name(name) for name in attacks))
    for name in names:
        find_attack(name).build(model, ThreatModel(norm, max(grid.epsilons)), settings)
    programs = (programs or Programs(model, norm, metric)).check(model, norm, metric)
    # The least of all processes: they have to run the same programs.
    memory = memory or min(map(int, hosts.gather(str(device_memory() // 2))))
    params = put_params(params)
    sweep = _Sweep(programs, params, grid, settings.of_judges(), seed, memory, {})
    clean = CleanPass(programs, params, names)
    for batch in batches_factory():
        clean.add(batch)
    of_model, batches = clean.end().found(), len(clean.index)
    tell_of_model(of_model, say)
    notes = Journal(None, "")
    if journal is not None:
        own = model_digest(programs, params, clean.digest)
        notes = Journal(journal, own, clean.logits)
    labels = notes_on_labels(clean.counts) if clean.counts is not None else []
    note = notes.note({own for name in names for own in sweep.entries(name)})
    for line in filter(None, [*labels, note]):
        (say or (lambda line: None))(line)
    right_when_clean = clean.of_valid(clean.correct)
    rows, correct = [], {}
    for place, name in enumerate(names):
        right, gradients = [], 0
        for number, batch in enumerate(same_pass(batches_factory(), clean.index)):
            found, gradients = sweep.attack(name, number, batch, notes)
            right.append(found[:, batch["valid"]])
            if progress:
                progress(place * batches + number + 1, len(names) * batches, name)
        correct[name] = np.concatenate(right, axis=1)
        rows += sweep.rows(name, correct[name], right_when_clean, gradients)
    compilations = {name: programs.compilations.get(_title(name), 0) for name in names}
    return GridResult(
        tuple(rows),
        mean(right_when_clean),
        correct,
        compilations,
        dict(sweep.chunks),
        tuple(labels),
        of_model,
    )


class _Sweep(NamedTuple):
    """A sweep, with everything that its batches share."""

    programs: Programs
    params: Any
    grid: Grid
    settings: AttackSettings
    seed: int
    memory: int
    chunks: dict[str, int]  # points at once, by attack

    def attack(
        self, name: str, number: int, batch: Batch, journal: Journal
    ) -> tuple[np.ndarray, int]:
        """Returns who is right under all restarts, [P, B], and gradients of a clip."""
        right, gradients = np.ones((len(self.grid.points), 1)), 0
        for restart in range(ATTACKS[name].calls(self.settings)[0]):
            keys = {
                point: (self._entry(name, point), number, restart) for point in self.grid.points
            }
            missing = [point for point in keys if keys[point] not in journal]
            found = {}
            while missing:
                chunk = missing[: self._chunk(name, batch, len(missing))]
                correct, taken = self._run(name, batch, chunk, restart)
                for point, own in zip(chunk, correct, strict=True):
                    found[point] = journal.recall(keys[point], lambda pair=(own, taken): pair)
                missing = missing[len(chunk) :]
            for point in keys.keys() - found.keys():
                found[point] = journal.recall(keys[point], lambda: None)
            right = np.minimum(right, [found[point][0] for point in self.grid.points])
            gradients += found[self.grid.points[0]][1]
        return right, gradients

    def entries(self, name: str) -> list[str]:
        """The first parts of all keys that results of an attack may have in a journal."""
        return [self._entry(name, point) for point in self.grid.points]

    def rows(
        self, name: str, correct: np.ndarray, clean: np.ndarray, gradients: int
    ) -> list[GridRow]:
        """The rows of an attack: what is right at each point, [P, N], and when clean, [N]."""
        named = ATTACKS[name]
        return [
            GridRow(
                attack=name,
                epsilon=point.epsilon,
                numbers=dict(zip(self.grid.values, point.numbers, strict=True)),
                robust_accuracy=mean(robust(values, clean)),
                accuracy_under_attack=mean(values),
                n=len(values),
                seed=self.seed,
                steps=named.steps(self.settings),
                restarts=1 if named.from_clean else self.settings.restarts,
                gradient_evaluations=gradients,
            )
            for point, values in zip(self.grid.points, correct, strict=True)
        ]

    def _entry(self, name: str, point: Point) -> str:
        numbers = dict(zip(self.grid.values, point.numbers, strict=True))
        return entry(
            name, dataclasses.replace(self.settings, **numbers), "grid", point.epsilon, self.seed
        )

    def _chunk(self, name: str, batch: Batch, most: int) -> int:
        """How many points one call takes: as many as fit the memory, by the compiler's count.

        `most` is how many there are at the first call.
        """
        if name not in self.chunks:
            size = most
            while size > 1:
                args = self._arguments(name, batch, self.grid.points[:size], 0)
                needed = self.programs.memory(
                    _title(name), self._program(name), *args, examples=(1, 2, 3)
                )
                if needed <= self.memory:
                    break
                size = max(1, min(size - 1, size * self.memory // needed))
            self.chunks[name] = size
        return self.chunks[name]

    def _run(self, name: str, batch: Batch, chunk: list[Point], restart: int):
        filled = chunk + [chunk[-1]] * (self.chunks[name] - len(chunk))
        args = self._arguments(name, batch, filled, restart)
        found, _ = self.programs.timed(_title(name), self._program(name), *args, examples=(1, 2, 3))
        attacked, verdict, gradients = jax.device_get(found)
        for place, point in enumerate(chunk):
            own = jax.tree.map(lambda leaf, place=place: leaf[place], (attacked, verdict))
            check_attack(*own, batch, name, point.epsilon)
        return verdict.correct[: len(chunk)], int(gradients)

    def _arguments(self, name: str, batch: Batch, points: list[Point], restart: int) -> tuple:
        """Keys a program: also by the settings, whose static fields are compiled into it."""
        names = list(self.grid.values)
        columns = np.asarray([point.numbers for point in points], np.float32)
        numbers = {name: columns[:, place] for place, name in enumerate(names)}
        epsilons = np.asarray([point.epsilon for point in points], np.float32)
        clips = inputs_of(batch)
        once = as_numbers(ATTACKS[name].calls(self.settings)[1])
        seeds = np.uint32(self.seed), np.uint32(restart)
        return self.params, *clips, epsilons, numbers, once, *seeds

    def _program(self, name: str) -> Callable:
        model, norm, metric = self.programs.model, self.programs.norm, self.programs.metric

        def program(params, x, y, index, epsilons, numbers, once, seed, restart):
            points, batch = len(epsilons), len(index)

            def clips(values):  # [B, …] -> [P · B, …]
                return jnp.tile(values, (points, *[1] * (values.ndim - 1)))

            def settings(values):  # [P] -> [P · B]
                return jnp.repeat(values, batch)

            keys = clips(numbered_keys(attack_keys(seed, name, index), restart))
            threat = ThreatModel(norm, settings(epsilons))
            own = dataclasses.replace(once, **jax.tree.map(settings, numbers))
            x, y = clips(x), clips(y)
            result = build_attack(name, model, threat, own)(keys, params, x, y)
            verdict = verify(model, metric, threat, params, result.x_adv, x, y)
            found = Attacked(result.finite), verdict
            by_point = jax.tree.map(lambda v: v.reshape(points, batch, *v.shape[1:]), found)
            return (*by_point, result.gradients)

        return program


def device_memory() -> int:
    """Bytes of the first device, or of this machine where the device is its CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = pathlib.Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    return memory


def _epsilon(row: GridRow) -> float:
    return row.epsilon


def _title(name: str) -> str:
    """Names the program of an attack over a grid."""
    return f"grid {name}"
