"""The table of an evaluation: one row for each attack and ε, and what the rows were made from."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxmoe.attacks.objectives import FEWEST_CLASSES
from jaxmoe.evaluation.engine.kept import Kept
from jaxmoe.evaluation.engine.shown import Shown
from jaxmoe.evaluation.measures.significance import interval
from jaxmoe.evaluation.measures.specialization import Specialization
from jaxmoe.threat import format_epsilon

_MOST_SHOWN = 10  # classes of a note
_FEW_LABELS = 10
WORST_CASE = "worst-case"
CLEAN = "clean"


class Row(NamedTuple):
    """One attack at one ε. All means and maxima are over the `n` valid clips.

    What does not apply is None: routing where the model has none, an attack's figures in the rows
    of clean clips and of the worst case. Lipschitz figures are the mean-square
    quotients of `evaluation.measures.lipschitz`, without a root.
    """

    attack: str  # its name, or "clean", or "worst-case": right under every attack, clip by clip
    epsilon: float  # in pixel units; 0 for clean
    norm: str
    robust_accuracy: float  # 0–1; right when clean and right under the attack
    accuracy_under_attack: float  # 0–1; right under the attack
    n: int  # clips
    seed: int
    steps: int | None  # of one start; queries of a black-box attack
    restarts: int | None
    gradient_evaluations: float  # per clip, those that were taken; a cascade's mean over clips
    seconds: float  # of the attack on all clips, without compilation and scoring
    compile_seconds: float  # in the first ε's row of an attack, where it is compiled
    # 0–1; right when clean and where the attacked part alone sees x': RA-R of attacks on the
    # router, RA-E of those on the experts. End to end both are `robust_accuracy`.
    isolated_accuracy: float | None = None
    flip_rate: float | None = None  # share of clips whose first choice of expert changed
    routing_iou: float | None = None  # mean IoU of the sets of chosen experts, clean and attacked
    load_clean: list[float] | None = None  # [M], share of clips by first choice
    load_adversarial: list[float] | None = None
    routing_entropy_clean: float | None = None  # mean over clips, nats
    routing_entropy_adversarial: float | None = None
    routing_entropy_clean_normalized: float | None = None  # divided by log M
    routing_entropy_adversarial_normalized: float | None = None
    lipschitz_model_mean: float | None = None
    lipschitz_model_max: float | None = None
    lipschitz_router_weights_mean: float | None = None
    lipschitz_router_weights_max: float | None = None
    lipschitz_router_logits_mean: float | None = None
    lipschitz_router_logits_max: float | None = None
    lipschitz_experts_mean: list[float] | None = None  # [M]
    lipschitz_experts_max: list[float] | None = None
    # Mean loss of every iterate, steps + 1 per restart; Square's best at a few of its looks.
    loss_trace: list[float] | None = None
    zero_gradient: float | None = None  # share of gradients that were zero; 0 for broken clips
    gradient: str | None = None  # modes of the mixture's gradient that were tried, joined by +
    # 0–1, of one confusion matrix over all pixels under the attack, where every pixel has a label.
    # The worst case takes of each image the attack that leaves the fewest pixels right.
    mean_iou: float | None = None
    mean_iou_interval: list[float] | None = None  # [2], 95 %, bootstrap over images
    test_set: str | None = None  # the digest of other clips than the run's own test split
    # The clean row of a mixture alone has these: how good its experts are by themselves, and how
    # much its router decides. `SuiteResult.specialization` has them with intervals.
    expert_accuracy: list[float] | None = None  # [M], each expert alone on all clips, 0–1
    trust_accuracy: list[float] | None = None  # [M], the expert of each rank of trust, most first
    random_route_accuracy: float | None = None  # 0–1
    oracle_accuracy: float | None = None  # 0–1; some expert is right
    routing_gain: float | None = None  # accuracy less that of a random route
    mixture_gain: float | None = None  # accuracy less that of the best single expert
    expert_agreement: float | None = None  # two experts predict the same, mean over pairs, 0–1
    route_class_information: float | None = None  # of first choice and class, nats
    measures: dict[str, float] | None = None  # means of those of `MEASURES` that were asked for

    def as_record(self) -> dict[str, Any]:
        """Returns the row for JSON; without measures where there are none."""
        record = self._asdict()
        if self.measures is None:
            del record["measures"]
        return record


class StageRow(NamedTuple):
    """One attack of a cascade, on the clips that stood before it."""

    cascade: str
    attack: str
    epsilon: float  # in pixel units
    robust_accuracy: float  # 0–1, of all n clips, after it
    standing: int  # clips that stand after it
    attacked: int  # clips that stood before it
    gradient_evaluations: int  # of all clips together
    seconds: float  # of its attack, without compilation and scoring
    compile_seconds: float  # of its attack


class Check(NamedTuple):
    """One sign that figures are not what they seem, and whether it was seen."""

    name: str
    value: float | None
    verdict: str  # "pass", "flag", or "not run"
    sentence: str
    kind: str = "masking"  # of masked gradients; or "model": of the model itself, without attacks


class SuiteResult(NamedTuple):
    """All that a suite found.

    `correct[attack, ε]` is 1 (right) or 0 (wrong) of each valid clip under that attack, float of
    shape [N] in the order of `index`; `correct["clean", 0.0]` without an attack. Where every pixel
    has a label it is the share of pixels, and `confusion` has a matrix [N, K, K] for each image.
    """

    rows: tuple[Row, ...]
    correct: dict[tuple[str, float], np.ndarray]
    index: np.ndarray  # shape=(N,), the clips' own numbers
    label: np.ndarray  # shape=(N, …)
    checks: tuple[Check, ...]  # of masked gradients
    compilations: dict[str, int]  # of each program, attacks by their names
    compile_seconds: dict[str, float]
    stages: tuple[StageRow, ...] = ()  # of the cascades
    notes: tuple[str, ...] = ()  # what else a reader of the table has to know
    confusion: dict[tuple[str, float], np.ndarray] | None = None
    # How far the label's logit is above the largest other one, [N] by attack and ε as `correct`;
    # without cascades, and none where labels are no classes.
    margins: dict[tuple[str, float], np.ndarray] | None = None
    model_checks: tuple[Check, ...] = ()  # of the model itself, without an attack
    specialization: Specialization | None = None  # of a mixture of several experts
    # Prediction, confidence, route and size of change of each example, by attack and ε as
    # `correct`; after a cascade those of the attempt that broke it, or came nearest to that.
    kept: dict[tuple[str, float], Kept] | None = None
    shown: Shown | None = None  # a few whole adversarial examples, when all attacks have run

    def __repr__(self) -> str:
        """The clean row and the worst cases, and what the checks flag."""
        from jaxmoe.evaluation.engine.verdict import flags_in_short

        figures = [f"{CLEAN} {self.rows[0].robust_accuracy:.1%}"]
        for row in self.rows:
            if row.attack == WORST_CASE:
                radius = format_epsilon(row.epsilon, row.norm)
                figures.append(f"{WORST_CASE} at ε = {radius} {row.robust_accuracy:.1%}")
        attacks = len({row.attack for row in self.rows} - {CLEAN, WORST_CASE})
        return (
            f"SuiteResult({', '.join(figures)}; n = {len(self.index)}, attacks: {attacks}, "
            f"{flags_in_short((*self.checks, *self.model_checks))})"
        )

    def _repr_html_(self) -> str:
        """The table, in a notebook."""
        from jaxmoe.reporting.notebook import suite_html  # a room above, for who looks

        return suite_html(self)

    def row(self, attack: str, epsilon: float = 0.0) -> Row:
        """The row of an attack at an ε.

        Raises:
          KeyError: there is none.
        """
        for row in self.rows:
            if (row.attack, row.epsilon) == (attack, epsilon):
                return row
        raise KeyError(f"no row of {attack} at ε = {epsilon}")


def limits(row: Row) -> tuple[float, float] | None:
    """Returns the 95 % interval, 0–1, of a row's mean IoU, or of its robust accuracy.

    Where labels are of pixels it is that of mean IoU. One image has none, nor do results of before.
    """
    if row.mean_iou is not None:
        return None if row.mean_iou_interval is None else tuple(row.mean_iou_interval)
    return interval(row.robust_accuracy * row.n, row.n) if row.n else None


def robust(correct: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Right when clean and right under attack, clip by clip [N]; for parts of a clip the less."""
    return np.minimum(correct, clean)


def notes_on_losses(attacks: Iterable[str], classes: int) -> list[str]:
    """Returns notes on attacks that need more classes than a model has."""
    ratios = [name for name in dict.fromkeys(attacks) if name in ("apgd-dlr", "apgd-t")]
    if classes >= FEWEST_CLASSES or not ratios:
        return []
    return [
        f"{' and '.join(ratios)}: {classes} classes are too few for the difference-of-logits "
        "ratio; the margin takes its place"
    ]


def count_labels(label: np.ndarray, classes: int) -> np.ndarray:
    """Returns how many labels are of each class, [K]; void positions, below 0, do not count."""
    label = np.asarray(label)
    return np.bincount(label[label >= 0].ravel(), minlength=classes)


def notes_on_labels(counts: np.ndarray) -> list[str]:
    """Returns what a report has to say of labels that leave classes of the model out.

    Nobody expects all classes among fewer labels than classes, or than ten.

    Args:
      counts: labels of each class, [K].
    """
    classes, absent = len(counts), np.flatnonzero(counts == 0)
    if not absent.size or counts.sum() < max(classes, _FEW_LABELS):
        return []
    shown = ", ".join(map(str, absent[:_MOST_SHOWN])) + (", …" if absent.size > _MOST_SHOWN else "")
    from_1 = "; classes are numbered from 0" if absent[0] == 0 else ""
    return [f"labels: {absent.size} of {classes} classes never occur ({shown}){from_1}"]


def row_line(row: Row) -> str:
    """A line of an evaluation's log: robust accuracy, clips and seconds."""
    where = (
        "" if row.attack == CLEAN else f" ε = {format_epsilon(row.epsilon, row.norm)} {row.norm}"
    )
    figure = "accuracy" if row.attack == CLEAN else "robust"
    iou = "" if row.mean_iou is None else f", mIoU {row.mean_iou:.2%}"
    return (
        f"{row.attack}{where}: {figure} {row.robust_accuracy:.2%} of {row.n}{iou}, "
        f"{row.seconds:.1f} s"
    )


def stage_line(row: StageRow, norm: str) -> str:
    """A line of a cascade's log: robust accuracy, clips left, seconds."""
    compiled = f" and {row.compile_seconds:.1f} s of compilation" if row.compile_seconds else ""
    return (
        f"{row.cascade} ε = {format_epsilon(row.epsilon, norm)} {norm}: {row.attack:<8} robust "
        f"{row.robust_accuracy:.2%}, {row.standing} of {row.attacked} left, {row.seconds:.1f} s"
        f"{compiled}"
    )
