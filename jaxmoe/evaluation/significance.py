"""What a count of examples can tell apart from chance: exact tests of binomial counts."""

LEVEL = 0.05  # how often a check may say by chance what is not so


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
