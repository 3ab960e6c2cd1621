"""Domains of the rendered sets: appearance tells the domain, and the domain what a motion means.

There are two kinds of appearance. A tint is far larger than any perturbation that is usually
allowed, and no attack can take it away. Stripes are so faint that an ε of 4/255 can: a route by
them is sure on clean clips, and an attack turns it.

A network that is to be right in all of them has to learn a table of its own for each: there is
something to specialise in. Within a domain the motion alone tells the label, as without domains, so
a single frame of a clip still says nothing of it.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxmoe.choices import DOMAIN_CUES, DomainCue

COLUMN = "domain"  # of the data set, for `data.subset` and for measures of routing
_DARKEST = 0.25  # what a tint leaves of the channel that it dims the most
_FAINT = 4.0  # grey levels, the most that stripes add or take away
_PERIOD = 4.0  # pixels from one stripe to the next


def check_domains(domains: int, cue: str, classes: int) -> None:
    """Refuses a number of domains that cannot all give a motion or shape another meaning.

    Raises:
      ValueError: one line with the field; also of an unknown cue.
    """
    if cue not in DOMAIN_CUES:
        raise ValueError(f"data.domain_cue: {cue!r}; expected {' or '.join(DOMAIN_CUES)}")
    if not 1 <= domains <= classes:
        raise ValueError(
            f"data.domains: {domains}; expected 1 to {classes}, the number of classes, so that no "
            "two domains give a class the same meaning"
        )


def label_in(
    domain: Int[np.ndarray, " N"] | int, shown: Int[np.ndarray, " N"] | int, classes: int
) -> Int[np.ndarray, " N"] | int:
    """Returns the class that `shown` means in a domain, in domain 0 itself."""
    shift = 3 if classes % 3 else 1  # coprime to the number of classes, so that all domains differ
    return (shown + shift * domain) % classes


def tint(domains: int) -> Float[np.ndarray, "domains 3"]:
    """Returns the factor of each colour channel in each domain, from `_DARKEST` to 1."""
    hue = np.arange(domains)[:, None] / domains - np.arange(3) / 3
    return (_DARKEST + (1 - _DARKEST) * (0.5 + 0.5 * np.cos(2 * np.pi * hue))).astype(np.float32)


def stripes(domains: int, height: int, width: int) -> Float[np.ndarray, "domains H W"]:
    """Returns the grey levels that each domain's stripes add, at an angle of their own."""
    angle = np.pi * np.arange(domains)[:, None, None] / domains
    down, across = np.mgrid[:height, :width]
    phase = 2 * np.pi / _PERIOD * (np.cos(angle) * across + np.sin(angle) * down)
    return (_FAINT * np.sin(phase + np.pi / 4)).astype(np.float32)


def seen_in(
    frames: UInt8[np.ndarray, "... H W 3"], domain: int, domains: int, cue: DomainCue
) -> UInt8[np.ndarray, "... H W 3"]:
    """Returns frames as they look in a domain: in the only one, as they are."""
    if domains == 1:
        return frames
    if cue == "tint":
        return np.rint(frames * tint(domains)[domain]).astype(np.uint8)
    added = stripes(domains, *frames.shape[-3:-1])[domain][:, :, None]
    return np.rint(np.clip(frames + added, 0, 255)).astype(np.uint8)
