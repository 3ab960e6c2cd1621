"""Numbers that change while a stage trains: the learning rate, ε, the share of λ, the spread."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jaxmoe.training.stages import LoopOptions, Stage

Schedule = Callable[[Array], Array]


class Numbers(NamedTuple):
    """The scheduled numbers of a step, or of each step of a stage, float32.

    A compiled step takes them as arguments, so that one program serves stages of any length, and
    any learning rate and ε.

    Attributes:
      learning_rate: of the optimiser.
      epsilon: ε of the attacks.
      spread: share of the balance weight and of the router's noise.
      lam_share: share of λ; None where it does not rise.
    """

    learning_rate: np.ndarray
    epsilon: np.ndarray
    spread: np.ndarray
    lam_share: np.ndarray | None = None

    def at(self, step: int) -> "Numbers":
        """Returns those of one step."""
        return Numbers(*(None if each is None else each[step] for each in self))


def numbers_of(
    stage: Stage, steps: int, options: LoopOptions, *, epsilon: float, spread_left: float
) -> Numbers:
    """Returns the numbers of each of the `steps` steps of a stage.

    Args:
      stage: its learning rate, and how long ε rises.
      steps: how many.
      options: the loop's schedule.
      epsilon: ε, once it has risen.
      spread_left: share of the spread at the end; it falls linearly from 1.
    """
    peak = options.learning_rate if stage.learning_rate is None else stage.learning_rate
    schedules: list[Schedule | None] = [
        learning_rate_schedule(options.schedule, peak, steps, options.warmup),
        epsilon_schedule(epsilon, steps, stage.epsilon_warmup),
        optax.linear_schedule(1.0, spread_left, steps),
        epsilon_schedule(1.0, steps, stage.epsilon_warmup) if stage.epsilon_warmup else None,
    ]
    with jax.numpy_dtype_promotion("standard"):  # optax adds integers to floats
        each = jnp.arange(steps)
        return Numbers(*(_values(schedule, each) for schedule in schedules))


def _values(schedule: Schedule | None, steps: Array) -> np.ndarray | None:
    if schedule is None:
        return None
    return np.broadcast_to(np.asarray(schedule(steps), np.float32), steps.shape)


def learning_rate_schedule(
    kind: Literal["one_cycle", "constant"], peak: float, steps: int, warmup: float
) -> Schedule:
    """`step -> learning rate`: constant, or linear up for `warmup · steps`, then a cosine to 0."""
    if kind == "constant":
        return optax.constant_schedule(peak)
    rise = int(warmup * steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(peak / 25, peak, max(rise, 1)),
            optax.cosine_decay_schedule(peak, max(steps - rise, 1)),
        ],
        [rise],
    )


def epsilon_schedule(epsilon: float, steps: int, warmup: float) -> Schedule:
    """`step -> ε`: linear from ε over the rise for `warmup · steps`, then ε.

    With ε = 1 it is the share of λ, which warms up beside ε (`make_train_step`).
    """
    rise = int(warmup * steps)
    if rise == 0:
        return optax.constant_schedule(epsilon)
    return optax.linear_schedule(epsilon / rise, epsilon, rise)
