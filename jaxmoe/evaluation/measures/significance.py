"""Exact tests and intervals: which figures so few examples can tell apart from chance."""

from typing import NamedTuple

import numpy as np

LEVEL = 0.05  # how often a check may say by chance what is not so


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def exceeds(count: float, n: int, share: float) -> bool:
    """Returns whether `count` of `n` examples are too many for a probability of `share` each.

    One example of several is no evidence.

    Args:
      count: how many were seen; a part of an example counts as none.
      n: of how many.
      share: what is allowed, 0–1.
    """
    from scipy import special  # a tenth of the time that `scipy.stats` takes to import

    whole = int(count + 1e-6)
    return not whole < 2 <= n and bool(special.bdtrc(whole - 1, n, share) < LEVEL)


def outweighs(more: int, less: int) -> bool:
    """Returns whether `more` changes one way and `less` the other are no coin's: the sign test."""
    return exceeds(more, more + less, 0.5)


def interval(count: float, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of Clopper and Pearson 1934 of a share, 0–1."""
    from scipy import special

    low = special.betaincinv(count, n - count + 1, LEVEL / 2) if count > 0 else 0.0
    high = special.betaincinv(count + 1, n - count, 1 - LEVEL / 2) if count < n else 1.0
    return float(low), float(high)


def estimate_mean(values: np.ndarray) -> Estimate:
    """Returns the mean of values from 0 to 1, [N], N ≥ 1.

    The interval is Clopper's and Pearson's where all values are 0 or 1, else the normal one with
    two values of 0 and two of 1 added (Agresti and Coull 1998).
    """
    values = np.asarray(values, np.float64)
    value, n = float(values.mean()), len(values)
    if np.isin(values, (0.0, 1.0)).all():
        return Estimate(value, *interval(values.sum(), n))
    low, high = _normal_interval(values, np.array([0.0, 0.0, 1.0, 1.0]), 1.0)
    return Estimate(value, max(low, 0.0), min(high, 1.0))


def estimate_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Returns the mean of `first − second`, values from 0 to 1 of the same N clips each, N ≥ 1.

    The interval is the normal one of the pairs, half a pair of each kind added (Agresti and Min
    2005): pairs that never differ are no proof that none would.
    """
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    low, high = _normal_interval(difference, np.array([-1.0, 0.0, 0.0, 1.0]), 0.5)
    return Estimate(float(difference.mean()), max(low, -1.0), min(high, 1.0))


def _normal_interval(values: np.ndarray, added: np.ndarray, weight: float) -> tuple[float, float]:
    n = len(values) + weight * len(added)
    mean = (values.sum() + weight * added.sum()) / n
    variance = (np.square(values).sum() + weight * np.square(added).sum()) / n - mean**2
    half = 1.96 * (max(variance, 0.0) / n) ** 0.5
    return float(mean - half), float(mean + half)
