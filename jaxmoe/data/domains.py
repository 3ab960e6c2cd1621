"""Domains of the rendered sets: appearance tells the domain, and the domain what a motion means.

A network that is to be right in all of them has to learn a table of its own for each: there is
something to specialise in. Within a domain the motion alone tells the label, as without domains, so
a single frame of a clip still says nothing of it.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

COLUMN = "domain"  # of the data set, for `data.subset` and for measures of routing
_SHIFT = 3  # of labels from one domain to the next; coprime to 10, so ten domains all differ
_DARKEST = 0.25  # what a tint leaves of the channel that it dims the most


def check_domains(domains: int, classes: int) -> None:
    """Refuses a number of domains that cannot all give a motion or shape another meaning.

    Raises:
      ValueError: one line with the field.
    """
    if not 1 <= domains <= classes:
        raise ValueError(
            f"data.domains: {domains}; expected 1 to {classes}, so that no two domains give a "
            "class the same meaning"
        )


def label_in(
    domain: Int[np.ndarray, " N"] | int, shown: Int[np.ndarray, " N"] | int, classes: int
) -> Int[np.ndarray, " N"] | int:
    """Returns the class that `shown` means in a domain, in domain 0 itself."""
    return (shown + _SHIFT * domain) % classes


def tint(domains: int) -> Float[np.ndarray, "domains 3"]:
    """Returns the factor of each colour channel in each domain, from `_DARKEST` to 1."""
    hue = np.arange(domains)[:, None] / domains - np.arange(3) / 3
    return (_DARKEST + (1 - _DARKEST) * (0.5 + 0.5 * np.cos(2 * np.pi * hue))).astype(np.float32)


def tinted(
    frames: UInt8[np.ndarray, "... 3"], domain: int, domains: int
) -> UInt8[np.ndarray, "... 3"]:
    """Returns frames as they look in a domain: of a single one, as they are."""
    if domains == 1:
        return frames
    return np.rint(frames * tint(domains)[domain]).astype(np.uint8)
