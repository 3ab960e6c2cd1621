"""What is kept of several tries at one batch."""

import numpy as np

from jaxmoe.attacks import AttackResult
from jaxmoe.evaluation.engine.scoring import Scores
from jaxmoe.evaluation.engine.strongest import strongest


def attempt(loss, correct, isolated):
    """A try at three clips."""
    nothing = np.zeros(3)
    result = AttackResult(nothing, np.asarray(loss), np.zeros((2, 3)), 4, nothing, nothing == 0)
    result = result._replace(step_sizes=np.tile(result.loss[:, None, None], (1, 4, 2)))
    scores = dict.fromkeys(Scores._fields)
    scores |= {"correct": np.asarray(correct), "isolated_router": np.asarray(isolated)}
    return result, Scores(**scores | {"isolated_experts": np.ones(3)})


def test_a_clip_keeps_the_try_that_broke_it_and_each_form_its_own_worst():
    winner, result, score = strongest(
        [
            attempt([1.0, 2.0, 1.0], [1, 0, 1], [0, 1, 1]),
            attempt([3.0, 3.0, 0.0], [0, 1, 1], [1, 1, 0]),
        ]
    )
    np.testing.assert_array_equal(winner, [1, 0, 0])
    np.testing.assert_array_equal(score.correct, [0, 0, 1])
    np.testing.assert_array_equal(score.isolated_router, [0, 1, 0])
    np.testing.assert_array_equal(result.loss, [3, 2, 1])
    np.testing.assert_array_equal(result.step_sizes, np.tile(result.loss[:, None, None], (4, 2)))
    assert result.gradients == 8
