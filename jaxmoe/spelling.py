"""Suggests the accepted word that a misspelt one is nearest to."""

import difflib
from collections.abc import Iterable

ALIKE = 0.6  # of words that a user makes up, which may be like none


def nearest(word: str, known: Iterable[str], cutoff: float = 0.0) -> str | None:
    """Returns the known word that is most like `word`.

    Args:
      word: what was given.
      known: what is accepted.
      cutoff: from 0 to 1; the least likeness. At 0 the only reason for None is that nothing is
        known.
    """
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.0) -> str:
    """Returns `"; did you mean x?"` for the nearest word, or nothing where there is none."""
    found = nearest(word, known, cutoff)
    return "" if found is None else f"; did you mean {found}?"
