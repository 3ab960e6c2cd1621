"""Numbers that change while a stage trains: the learning rate, ε, the spread, the share of λ.

S = steps of a stage.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from jaxmoe.training.stages import LoopOptions, Stage
from jaxmoe.training.state import Batch, TrainState

Schedule = Callable[[Array], Array]


class Numbers(NamedTuple):
    """The scheduled numbers of a step.

    Attributes:
      learning_rate: of the optimiser.
      epsilon: ε of the attacks.
      spread: share of the balance weight and of the router's noise.
      lam_share: share of λ.
    """

    learning_rate: Float[Array, ""]
    epsilon: Float[Array, ""]
    spread: Float[Array, ""]
    lam_share: Float[Array, ""]


def numbers_of(
    stage: Stage, steps: int, options: LoopOptions, *, epsilon: float, spread_left: float
) -> Float[np.ndarray, "steps 4"]:
    """Returns the numbers of each step of a stage, in the order of `Numbers`, float32.

    Args:
      stage: the stage, for its learning rate and its rise of ε.
      steps: S.
      options: the loop's schedule and its peak.
      epsilon: ε, once it has risen.
      spread_left: share of the spread at the end; it falls linearly from 1.
    """
    peak = options.learning_rate if stage.learning_rate is None else stage.learning_rate
    schedules = Numbers(
        learning_rate_schedule(options.schedule, peak, steps, options.warmup),
        epsilon_schedule(epsilon, steps, stage.epsilon_warmup),
        optax.linear_schedule(1.0, spread_left, steps),
        epsilon_schedule(1.0, steps, stage.epsilon_warmup),
    )

    @jax.jit
    def table():
        each = jnp.arange(steps)
        columns = [jnp.asarray(schedule(each), jnp.float32) for schedule in schedules]
        return jnp.stack([jnp.broadcast_to(column, (steps,)) for column in columns], axis=1)

    with jax.numpy_dtype_promotion("standard"):  # optax adds integers to floats
        return np.asarray(table())


def scheduled(
    make_step: Callable[..., Callable], *, lam_rises: bool
) -> Callable[[TrainState, Batch, tuple[Key[Array, ""], Float[Array, " 4"]]], tuple]:
    """Returns a step that takes its numbers beside its key: `(state, batch, (key, numbers))`.

    One program then serves stages of any length, and any learning rate and ε.

    Args:
      make_step: `make_train_step` that lacks its schedules.
      lam_rises: whether the share of λ is used; without it λ is a constant of the program.
    """

    def step(state: TrainState, batch: Batch, given: tuple[Array, Array]):
        key, numbers = given
        now = Numbers(*(numbers[place] for place in range(len(Numbers._fields))))
        step_with_numbers = make_step(
            learning_rate=optax.constant_schedule(now.learning_rate),
            epsilon=optax.constant_schedule(now.epsilon),
            spread=optax.constant_schedule(now.spread),
            lam_share=optax.constant_schedule(now.lam_share) if lam_rises else None,
        )
        return step_with_numbers(state, batch, key)

    return step


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
