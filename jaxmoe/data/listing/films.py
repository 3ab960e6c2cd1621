"""Finds the film that a clip was cut from, where its name tells: as UCF-101's and HMDB-51's do.

Clips of one film are much alike: with one in train, another in test is judged too well.
"""

import pathlib
import re
from collections.abc import Iterable

from jaxmoe.data.loading.source import ClipRecord

_NAMES = (
    # v_Archery_g08_c01
    re.compile(r"(v_.+?_g\d{2,})_c\d{2,}(?!\d)"),
    # Of UCF11 v_biking_08_01; v_2021_05_03 is a date.
    re.compile(r"(v_[A-Za-z]+(?:_[A-Za-z]+)*_\d{2})_\d{2}(?!\d)"),
    # April_09_brush_hair_u_nm_np1_ba_goo_0: film, class, body, camera, people, side, quality, clip
    re.compile(r"(.+)_[fhlu]_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+(?!\d)"),
)


def film_of(path: str) -> str | None:
    """Returns the film that a clip, or an image, was cut from, if its name or a folder's tells."""
    for part in reversed(pathlib.PurePosixPath(path).parts):
        for name in _NAMES:
            if found := name.match(part):
                return found[1]
    return None


def shared_films(some: Iterable[ClipRecord], others: Iterable[ClipRecord]) -> list[str]:
    """Returns the films, sorted, of which clips are in both."""
    films = [{film_of(record.path) for record in records} for records in (some, others)]
    return sorted((films[0] & films[1]) - {None})
