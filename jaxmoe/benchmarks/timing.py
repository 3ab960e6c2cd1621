"""Two sides timed in turns, so that a busy machine slows both."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from jaxmoe.benchmarks.row import Row, machine

ROUNDS = 5


def compare(
    name: str,
    bar: float,
    sides: dict[str, Callable[[], Any]],
    detail: str,
    *,
    times: float = 1.0,
    rounds: int = ROUNDS,
) -> Row:
    """The row of first side ÷ (`times` × second side); more sides are summed with the second.

    Args:
      name: of the row.
      bar: the ratio should not pass it.
      sides: what to run, by name; each returns what it computes, and is waited for.
      detail: what is divided by what.
      times: how often the first side does what the others do once.
      rounds: of which the median is taken.
    """
    seconds = time_in_turns(sides, rounds)
    # Programs are large, and nobody calls these again.
    jax.clear_caches()
    first, *others = seconds.values()
    ratios = [own / (times * sum(against)) for own, *against in zip(first, *others, strict=True)]
    return Row(
        name,
        statistics.median(ratios),
        bar,
        (min(ratios), max(ratios)),
        detail,
        {side: statistics.median(measured) for side, measured in seconds.items()},
        machine(),
    )


def time_in_turns(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of every side in every round.

    Each side runs twice before the first round. In a round all sides run one after the other, the
    other way round in every second one.
    """
    for side in [*sides.values()] * 2:
        jax.block_until_ready(side())
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    order = list(sides)
    for number in range(rounds):
        for side in order if number % 2 == 0 else order[::-1]:
            start = time.perf_counter()
            jax.block_until_ready(sides[side]())
            seconds[side].append(time.perf_counter() - start)
    return seconds
