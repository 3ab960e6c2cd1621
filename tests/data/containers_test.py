"""Every container in every condition: the frames that a player shows, or a line that says why not.

The matrix is `tests/data/containers.py`; the guide shows it as a table.
"""

import contextlib
import pathlib
import re

import pytest

import jaxmoe.data
from jaxmoe.data.decoding.decode import UnreadableVideoError, decode_frames
from tests.data.containers import (
    CONDITIONS,
    CONTAINERS,
    FRAMES,
    cut,
    differences,
    expected_table,
    make_films,
)

CELLS = [
    pytest.param(container, condition, id=f"{container.name}-{condition}")
    for container in CONTAINERS
    for condition in CONDITIONS
    if condition not in container.lacks
]


@pytest.mark.parametrize(("container", "condition"), CELLS)
def test_a_film_is_read_as_a_player_shows_it(tmp_path, container, condition):
    films = make_films(container, condition, tmp_path)
    assert films
    for film in films:
        found = differences(film)
        if film.refused:
            assert len(found) == 1
            assert re.search(f"^refused: .*({film.refused})", found[0]), found
        else:
            assert not found


CUT_BY_DAY = ("mp4", "avi", "webm")


# Between two tags of an FLV there is no sign of a cut, but a length in its header, often wrong.
@pytest.mark.parametrize(
    "container",
    [
        pytest.param(c, id=c.name, marks=[pytest.mark.nightly] * (c.name not in CUT_BY_DAY))
        for c in CONTAINERS
        if "cut" not in c.lacks and c.name != "flv"
    ],
)
def test_wherever_a_film_is_cut_a_frame_is_the_most_that_is_lost_in_silence(tmp_path, container):
    for film in cut(container, tmp_path, range(70, 100)):
        frames = []
        with contextlib.suppress(UnreadableVideoError):
            decode_frames(film.file, 32, frames.append)
            assert len(frames) >= FRAMES - 1, film.file


def test_the_guide_has_this_table():
    guide = pathlib.Path(jaxmoe.data.__file__).with_name("README.md")
    assert expected_table() in guide.read_text("utf-8")
