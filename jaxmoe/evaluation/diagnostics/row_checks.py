"""Signs of masked gradients in what attacks have found: their gradients, losses and accuracies.

Shares are held against what is allowed by an exact test of counts, so that one clip of forty is no
alarm and two of a hundred thousand are none either. Axes: N = valid clips.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmoe.attacks import ATTACKS, CASCADES, Cascade
from jaxmoe.evaluation.engine.cascade import CascadeResult
from jaxmoe.evaluation.engine.rows import CLEAN, Check, Row, StageRow
from jaxmoe.evaluation.engine.summary import mean
from jaxmoe.evaluation.measures.significance import exceeds, outweighs
from jaxmoe.threat import format_epsilon

Correct = dict[tuple[str, float], np.ndarray]
"""What is right, [N], by attack and ε."""

# Shares up to here pass: a rare saturated clip, or one clip in a hundred at its decision boundary.
SLACK = 0.01


def cascade_checks(found: CascadeResult, clean: np.ndarray, norm: str) -> tuple[Check, ...]:
    """Returns what a cascade by itself shows, of clips that are right when `clean` says so."""
    name = found.stages[0].cascade
    n = len(clean)
    zero = [] if found.zero_gradient is None else [(found.zero_gradient, name, n)]
    return _zero_gradients(zero), square_check({(CLEAN, 0.0): clean}, found.stages, norm)


def zero_gradient_check(rows: Sequence[Row]) -> Check:
    """The largest share of an attack's gradients that were zero, on clips that it did not break."""
    return _zero_gradients(
        [(row.zero_gradient, row.attack, row.n) for row in rows if row.zero_gradient is not None]
    )


def _zero_gradients(shares: Sequence[tuple[float, str, int]]) -> Check:
    """The largest of shares, names of attacks, and clips."""
    if not shares:
        return Check("zero gradients", None, "not run", "No attack took a gradient.")
    share, attack, n = max(shares)
    return Check(
        "zero gradients",
        share,
        verdict(not exceeds(share * n, n, SLACK)),
        f"{share:.1%} of the input gradients of {attack} were exactly zero, on examples that it "
        "did not break; such an attack stands still.",
    )


def loss_check(rows: Sequence[Row]) -> Check:
    """The share of attacks whose mean loss did not rise from their first look to their best."""
    attacked = [row for row in rows if row.loss_trace is not None and row.epsilon > 0]
    name = "loss rises with steps"
    if not attacked:
        return Check(name, None, "not run", "No attack with a loss of its own at an ε above 0.")
    flat = [row for row in attacked if not _loss_rose(row)]
    where = ", ".join(
        f"{row.attack} at ε = {format_epsilon(row.epsilon, row.norm)}" for row in flat
    )
    sentence = f"The mean loss did not rise under {where}." if flat else "It rose in every attack."
    return Check(name, len(flat) / len(attacked), verdict(not flat), sentence)


def epsilon_check(
    rows: Sequence[Row],
    correct: Correct | None = None,
    cascades: Mapping[str, Cascade] = CASCADES,
) -> Check:
    """The largest rise of an attack's robust accuracy from one ε to the next larger.

    Only attacks that look in the whole ball for mistakes of the whole model must grow with it: one
    step may overshoot, and what turns routes may turn one to a better expert.

    Args:
      rows: of a suite.
      correct: clip by clip, so that clips that went the other way count too.
      cascades: those that the rows may be of.
    """
    rises, name = [], "accuracy falls with ε"
    for attack in dict.fromkeys(row.attack for row in rows if searches_ball(row.attack, cascades)):
        ordered = sorted((row for row in rows if row.attack == attack), key=lambda row: row.epsilon)
        for less, more in itertools.pairwise(ordered):
            rise = more.robust_accuracy - less.robust_accuracy
            rises.append((rise > SLACK and _is_significant(less, more, correct), rise, less, more))
    if not rises:
        sentence = "It takes at least two ε of an attack that looks everywhere for mistakes."
        return Check(name, None, "not run", sentence)
    significant, rise, less, more = max(rises, key=lambda found: found[:2])
    if rise <= 0:
        return Check(name, rise, "pass", "No attack grew weaker with a larger ε.")
    return Check(
        name,
        rise,
        verdict(not significant),
        f"Robust accuracy under {less.attack} rose by {rise:.1%} from ε = "
        f"{format_epsilon(less.epsilon, less.norm)} to {format_epsilon(more.epsilon, less.norm)}"
        f"{'' if significant else f', which may be chance: n = {less.n}'}.",
    )


def _is_significant(less: Row, more: Row, correct: Correct | None) -> bool:
    """Returns whether more clips survived the larger ball alone than would by chance."""
    if correct is None:
        return outweighs(round((more.robust_accuracy - less.robust_accuracy) * less.n), 0)
    clean = correct[CLEAN, 0.0]
    smaller, larger = (np.minimum(correct[row.attack, row.epsilon], clean) for row in (less, more))
    return outweighs(int(np.sum(larger > smaller)), int(np.sum(larger < smaller)))


def searches_ball(name: str, cascades: Mapping[str, Cascade] = CASCADES) -> bool:
    """Whether an attack, or one of a cascade, looks everywhere for mistakes of the whole model."""
    return any(ATTACKS[part].white_box for part in _parts_of(name, cascades))


def sees_whole(name: str, cascades: Mapping[str, Cascade] = CASCADES) -> bool:
    """Returns whether an attack, or one of a cascade, follows gradients of the whole model."""
    named = [ATTACKS[part] for part in _parts_of(name, cascades)]
    return any(one.component in ("model", "joint") and not one.black_box for one in named)


def _parts_of(name: str, cascades: Mapping[str, Cascade]) -> list[str]:
    """The attacks of a cascade, an attack itself, or none of what is no attack."""
    parts = [stage.attack for stage in cascades[name].stages] if name in cascades else [name]
    return [part for part in parts if part in ATTACKS]


def square_check(correct: Correct, stages: Sequence[StageRow], norm: str) -> Check:
    """The largest share of clips that a black-box attack breaks and no gradient at that ε does.

    With gradients that lead somewhere, an attack that sees none is of no use after the others, if
    one of them searches the whole ball for what the whole model gets wrong.
    """
    name, shares = "white box beats Square", []
    clean = correct[CLEAN, 0.0]
    for attack, epsilon in correct:
        if attack not in ATTACKS or not ATTACKS[attack].black_box:
            continue
        beside = {
            other: right
            for (other, radius), right in correct.items()
            if radius == epsilon and other in ATTACKS and not ATTACKS[other].black_box
        }
        sighted = any(ATTACKS[other].white_box for other in beside)
        if sighted:
            left = np.minimum.reduce([clean, *beside.values()])
            alone = (left > 0) & (correct[attack, epsilon] == 0)
            shares.append((mean(alone), attack, epsilon))
    for stage in stages:
        before = itertools.takewhile(lambda other, stage=stage: other is not stage, stages)
        sighted = any(
            ATTACKS[other.attack].white_box
            for other in before
            if (other.cascade, other.epsilon) == (stage.cascade, stage.epsilon)
        )
        if ATTACKS[stage.attack].black_box and sighted:
            share = (stage.attacked - stage.standing) / len(clean)
            shares.append((share, f"{stage.attack} of {stage.cascade}", stage.epsilon))
    if not shares:
        return Check(
            name, None, "not run", "No black-box attack beside one by gradients of the whole model."
        )
    share, attack, epsilon = max(shares)
    return Check(
        name,
        share,
        verdict(not exceeds(share * len(clean), len(clean), SLACK)),
        f"{share:.1%} of {len(clean)} examples that attacks by gradients had left fell to {attack} "
        f"at ε = {format_epsilon(epsilon, norm)}, which sees none.",
    )


def _loss_rose(row: Row) -> bool:
    of_a_restart = len(row.loss_trace) // (row.restarts or 1)  # Square's is shorter than its steps
    first, *later = row.loss_trace[: min(row.steps + 1, of_a_restart)]
    return max(later, default=first) > first


def verdict(fine: bool) -> str:
    """Returns the word for a check that ran."""
    return "pass" if fine else "flag"
