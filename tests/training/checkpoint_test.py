"""A run that was killed between its two saves comes by the same step again."""

import jax
import numpy as np

from jaxmoe.training import Checkpoints, adamw, init_state


def test_saving_a_step_again_is_no_error_and_keeps_it(mixture, params, tmp_path):
    state = init_state(params, adamw(1e-2, 1.0))
    checkpoints = Checkpoints(tmp_path)
    for _ in range(2):
        checkpoints.save("best", 5, state, {"epoch": 1})
    restored, position = Checkpoints(tmp_path).restore("best", state)
    assert position == {"epoch": 1}
    for a, b in zip(*map(jax.tree.leaves, (restored, state)), strict=True):
        np.testing.assert_array_equal(a, b)
