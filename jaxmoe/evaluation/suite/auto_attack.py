"""AutoAttack on arrays, in one call. Axes: N = examples, B = batch, K = classes."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxmoe.attacks import build_attack, canonical_name
from jaxmoe.attacks.attack import Model
from jaxmoe.attacks.cascade import CASCADES, CUSTOM, Cascade, custom
from jaxmoe.attacks.compiled import logits_of
from jaxmoe.attacks.edge import (
    check_label_shape,
    check_labels,
    check_pixels,
    to_pixels,
)
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.choices import Norm
from jaxmoe.evaluation.diagnostics.row_checks import cascade_checks
from jaxmoe.evaluation.engine.arrays import cut
from jaxmoe.evaluation.engine.cascade import Cascading
from jaxmoe.evaluation.engine.journal import Journal
from jaxmoe.evaluation.engine.programs import Programs, put_params
from jaxmoe.evaluation.engine.rows import (
    Check,
    StageRow,
    count_labels,
    notes_on_labels,
    notes_on_losses,
    stage_line,
)
from jaxmoe.evaluation.engine.standing import StandingClips
from jaxmoe.evaluation.engine.verdict import flags_in_short, tell_of_masking, tell_of_model
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.evaluation.suite.clean_pass import CleanPass
from jaxmoe.options import check_number
from jaxmoe.threat import ThreatModel

Version = Literal["standard", "plus", "rand"]
VERSIONS = {
    "standard": "auto-attack",
    "plus": "auto-attack-plus",
    "rand": "auto-attack-rand",
}


class AutoAttackResult(NamedTuple):
    """The result of AutoAttack."""

    robust: np.ndarray  # bool [N]: right when clean and under every attack
    x_adv: np.ndarray  # [N, …], float32 or wider: what broke an example, or the clean one
    log: tuple[StageRow, ...]  # one for each attack
    clean: np.ndarray  # bool [N]: right when clean
    checks: tuple[Check, ...]  # signs of masked gradients, as far as these attacks show them
    notes: tuple[str, ...] = ()  # what else a reader of the figures has to know
    model_checks: tuple[Check, ...] = ()  # of the model itself, without an attack

    @property
    def robust_accuracy(self) -> float:
        """The share that is robust, 0–1."""
        return float(np.mean(self.robust))

    @property
    def clean_accuracy(self) -> float:
        """The share that is right when clean, 0–1."""
        return float(np.mean(self.clean))

    def __repr__(self) -> str:
        """The figures without the arrays, and what the checks flag."""
        return (
            f"AutoAttackResult(robust_accuracy={self.robust_accuracy:.4f}, "
            f"clean_accuracy={self.clean_accuracy:.4f}, n={len(self.robust)}, "
            f"{flags_in_short((*self.checks, *self.model_checks))})"
        )


def auto_attack(
    model: Model,
    params: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    epsilon: float,
    norm: Norm = "linf",
    version: Version | Sequence[str] = "standard",
    settings: AttackSettings = AttackSettings(),
    seed: int = 0,
    batch_size: int = 128,
    programs: Programs | None = None,
    say: Callable[[str], None] | None = None,
) -> AutoAttackResult:
    """Runs AutoAttack, each attack on the examples that the ones before it left standing.

    Args:
      model: `(params, x [B, …]) -> [B, K]`, a mixture, or a `Randomized` classifier.
        Convolutions of a plain function are made fast on CPU (`models.fast_convolutions`).
      params: its params.
      x: `[N, …]`, uint8 grey levels or floats in [0, 1]; Square takes images or clips, channels
        last.
      y: labels, int `[N]`.
      epsilon: radius in pixel units.
      norm: `"linf"` or `"l2"`.
      version: `"standard"`, `"plus"`, `"rand"` (for randomized models: 20 draws a gradient), or
        names of attacks for a cascade of one's own, which take their numbers from `settings`.
      settings: what a version does not say itself.
      seed: of random starts; they depend on it and on the example's place alone.
      batch_size: examples at once, or the next power of two above N where that is less; what is
        robust does not depend on it, but an attack stops where all of a batch is wrong, so the
        gradients taken and what is found first do.
      programs: `Programs(model, norm)`, to compile once for several calls.
      say: given a line after each attack, and for each sign that figures are not what they seem
        (`evaluate_suite` has more checks); these are warnings (`EvaluationWarning`) without it.

    Raises:
      ValueError: lengths that differ, pixels outside [0, 1], labels of no class, an unknown
        version, norm or attack, or an impossible ε.
      NonFiniteError: outputs, losses or gradients that are not finite.
      ThreatViolation: an attack that left its ball.
    """
    x, y = np.asarray(x), np.asarray(y)
    cut(x, y, batch_size)  # says what does not fit, before anything is compiled
    # Few examples fill a batch of their own size, one of a few: another number compiles nothing.
    batch_size = min(batch_size, 1 << (len(x) - 1).bit_length())
    check_number("epsilon", epsilon)
    params = put_params(params)
    check_pixels(x)
    name, cascade = _find(version)
    threat = ThreatModel(norm, float(epsilon))
    settings, attacks = settings.of_judges(), [stage.attack for stage in cascade.stages]
    for attack in attacks:
        build_attack(attack, model, threat, settings)
    classes = _count_classes(model, params, x, y)
    programs = (programs or Programs(model, norm)).check(model, norm, accuracy)

    batches = cut(x, y, batch_size)
    clean_pass = CleanPass(programs, params, attacks)
    for batch in batches():
        clean_pass.add(batch)
    clean = clean_pass.of_valid(clean_pass.correct)
    x_adv = np.array(to_pixels(x))

    def keep(name, batch, clips, right):
        del name
        broken = batch["valid"] & (right == 0)
        x_adv[batch["index"][broken]] = clips[broken]

    tell = say or (lambda line: None)
    notes = notes_on_losses(attacks, classes)
    notes += notes_on_labels(count_labels(y, classes))
    for line in notes:
        tell(line)
    of_model = clean_pass.found()
    tell_of_model(of_model, say)
    tell(f"{cascade.title}: clean {np.mean(clean):.2%} of {len(x)}")
    cascading = Cascading(
        programs,
        params,
        StandingClips(batches, compiled=programs.batch_sizes),
        settings,
        seed,
        (settings.gradient,),
        Journal(None, ""),
        keep,
        lambda row: tell(stage_line(row, norm)),
        classes=classes,
    )
    found = cascading.run(name, cascade, float(epsilon), clean)
    checks = cascade_checks(found, clean, norm)
    tell_of_masking(checks, say)
    left = found.correct > 0, x_adv, tuple(found.stages), clean > 0
    return AutoAttackResult(*left, checks, tuple(notes), of_model)


def _count_classes(model: Model, params: Any, x: np.ndarray, y: np.ndarray) -> int:
    """K, the last axis of the logits; refuses labels that are no classes."""
    logits = logits_of(model, params, to_pixels(x[:1])).shape
    check_label_shape(y, (len(y), *logits[1:]))
    check_labels(y, logits[-1])
    return logits[-1]


def _find(version: Version | Sequence[str]) -> tuple[str, Cascade]:
    if not isinstance(version, str) and version:
        return CUSTOM, custom([canonical_name(name) for name in version])
    if not isinstance(version, str) or version not in VERSIONS:
        raise ValueError(
            f"version: {version!r} is not one of {', '.join(VERSIONS)}, or a list of attacks"
        )
    return VERSIONS[version], CASCADES[VERSIONS[version]]
