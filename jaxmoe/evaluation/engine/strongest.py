"""Picks the attempt of an attack that did most harm, clip by clip.

Axes: B = batch.
"""

from collections.abc import Sequence

import jax
import numpy as np

from jaxmoe.attacks import AttackResult
from jaxmoe.evaluation.engine.scoring import Scores


def strongest(
    tries: list[tuple[AttackResult, Scores]],
) -> tuple[np.ndarray, AttackResult, Scores]:
    """Returns clip by clip the try that did most harm, [B], and its scores.

    Traces and costs are those of all tries together.
    """
    results, scores = zip(*tries, strict=True)
    correct = np.stack([score.correct for score in scores])
    loss = np.stack([result.loss for result in results])
    winner = np.lexsort((-loss, correct), axis=0)[0]  # least correct, then the greatest loss
    score = jax.tree.map(lambda *leaves: pick(leaves, winner), *scores)
    if score.isolated_router is not None:  # in these forms another try may do more harm
        score = score._replace(
            isolated_router=np.min([one.isolated_router for one in scores], axis=0),
            isolated_experts=np.min([one.isolated_experts for one in scores], axis=0),
        )
    sizes = [result.step_sizes for result in results]
    result = results[0]._replace(
        loss=pick(loss, winner),
        loss_trace=np.concatenate([result.loss_trace for result in results]),
        gradients=np.sum([result.gradients for result in results]),
        zero_gradient=np.mean([result.zero_gradient for result in results], axis=0),
        finite=np.all([result.finite for result in results], axis=0),
        step_sizes=None if sizes[0] is None else pick(sizes, winner),
    )
    return winner, result, score


def pick(tries: Sequence[np.ndarray], winner: np.ndarray) -> np.ndarray:
    """Returns clip by clip the entry of the try called `winner`, [B, …]."""
    return np.stack(tries)[winner, np.arange(len(winner))]
