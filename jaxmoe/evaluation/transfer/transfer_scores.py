"""Scores of one model's adversarial clips on another, and their rows. Axes: N = valid clips."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmoe.choices import Norm
from jaxmoe.evaluation.engine.rows import robust
from jaxmoe.evaluation.engine.summary import iou_of, join_confusion, join_valid, mean
from jaxmoe.evaluation.transfer.transfer_result import ALL_OTHERS, TransferRow


class Score(NamedTuple):
    """Who is right, clip by clip, and the confusion matrices where every pixel has a label."""

    correct: np.ndarray  # [N]
    confusion: np.ndarray | None  # [N, K, K]


def all_others(
    scores: dict,
    sources: Mapping[str, Any],
    targets: Mapping[str, Any],
    attack: str,
    epsilon: float,
) -> dict[tuple[str, str, str, float], Score]:
    """Right under the clips of every source but the target itself, clip by clip."""
    worst = {}
    for target in targets:
        others = [scores[source, target, attack, epsilon] for source in sources if source != target]
        if others:
            worst[ALL_OTHERS, target, attack, epsilon] = least(others)
    return worst


def least(scores: Sequence[Score]) -> Score:
    """Clip by clip the score that leaves the least right."""
    correct = np.stack([score.correct for score in scores])
    least, place = np.argmin(correct, axis=0), np.arange(correct.shape[1])
    if scores[0].confusion is None:
        return Score(correct[least, place], None)
    confusion = np.stack([score.confusion for score in scores])
    return Score(correct[least, place], confusion[least, place])


def join_scores(parts: Sequence[Score], valid: list[np.ndarray]) -> Score:
    """The scores of all batches' valid clips."""
    correct = join_valid([part.correct for part in parts], valid)
    return Score(correct, join_confusion([part.confusion for part in parts], valid))


def row_of(key: tuple, score: Score, clean: Score, norm: Norm, seed: int) -> TransferRow:
    """The row of a source, a target, an attack and an ε."""
    return TransferRow(
        *key,
        norm=norm,
        robust_accuracy=mean(robust(score.correct, clean.correct)),
        accuracy_under_attack=mean(score.correct),
        clean_accuracy=mean(clean.correct),
        n=len(score.correct),
        seed=seed,
        mean_iou=iou_of(score.confusion),
        clean_iou=iou_of(clean.confusion),
    )
