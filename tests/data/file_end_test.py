"""How files end: whole ones are never cut off, cut ones are, wherever the cut is."""

import numpy as np
import pytest

from jaxmoe.data.decoding.decode import UnreadableVideoError, decode_video
from jaxmoe.data.decoding.file_end import FileEnd, file_end
from tests.data.containers import CONTAINERS, make_films

SIZED = ("mp4", "mov", "mkv", "webm", "avi", "ts", "mpg", "flv", "ogv", "wmv", "gif")
# These have no mark at their end that is always there.
ENDLESS = ("ts", "mpg", "flv")
# MPEG has neither a length nor a last mark.
ZEROS_TELL = ("mp4", "mov", "mkv", "webm", "avi", "flv", "ogv", "wmv", "gif")


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


@pytest.mark.parametrize(
    "container", [c for c in CONTAINERS if c.name in ZEROS_TELL], ids=lambda c: c.name
)
def test_a_film_whose_greater_part_was_never_written_is_cut_off(tmp_path, container):
    whole = make_films(container, "no sound", tmp_path)[0].file
    data = whole.read_bytes()
    kept = len(data) * 2 // 5
    whole.write_bytes(data[:kept] + bytes(len(data) - kept))
    with pytest.raises(UnreadableVideoError, match=r"cut off|cannot be decoded"):
        decode_video(whole, 32)


def test_room_that_was_taken_and_not_needed_does_not_cut_a_film(whole):
    if whole.suffix == ".ts":  # its packets have one length
        return
    frames = decode_video(whole, 32)
    with whole.open("ab") as stream:
        stream.write(bytes(4096))
    assert len(decode_video(whole, 32)) == len(frames)


def test_other_files_say_nothing(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no video")
    assert file_end(file) is FileEnd.UNKNOWN
