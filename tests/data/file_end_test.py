"""How files end: whole ones are never cut off, cut ones are, wherever the cut is."""

import numpy as np
import pytest

from jaxmoe.data.file_end import FileEnd, file_end
from tests.data.containers import CONTAINERS, make_films

SIZED = ("mp4", "mov", "mkv", "webm", "avi", "ts", "mpg", "flv", "ogv", "wmv", "gif")
# These have no mark at their end that is always there.
ENDLESS = ("ts", "mpg", "flv")


@pytest.fixture(params=[c for c in CONTAINERS if c.name in SIZED], ids=lambda c: c.name)
def whole(request, tmp_path):
    return make_films(request.param, "no sound", tmp_path)[0].file


def test_a_cut_at_any_byte_is_seen(whole):
    data = whole.read_bytes()
    assert file_end(whole) is (FileEnd.UNKNOWN if whole.suffix[1:] in ENDLESS else FileEnd.WHOLE)
    early, cuts = 0, np.unique(np.linspace(500, len(data) - 20, 150, dtype=int))
    for length in cuts:
        whole.write_bytes(data[:length])
        early += file_end(whole) is FileEnd.EARLY
    # Between two parts a cut cannot be seen.
    assert early >= 0.9 * len(cuts)


def test_what_is_behind_a_container_does_not_cut_it(whole):
    if whole.suffix[1:] in ENDLESS:
        return
    with whole.open("ab") as stream:
        stream.write(b"\0" * 5)
    assert file_end(whole) is not FileEnd.EARLY


def test_other_files_say_nothing(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no video")
    assert file_end(file) is FileEnd.UNKNOWN
