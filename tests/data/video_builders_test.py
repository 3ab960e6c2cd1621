"""Films in a data set: at an uneven rate their clips are spread evenly in time."""

import os
import pickle
import tracemalloc

import numpy as np
import pytest

from jaxmoe.data import Augmentation, load_dataset, make_loader
from jaxmoe.data.builders.video_builders import VideoFolder
from tests.data.containers import CONTAINERS, make_films

MP4 = next(container for container in CONTAINERS if container.name == "mp4")


@pytest.fixture
def uneven(tmp_path):
    """A data set of films whose first half takes a sixth of the time, and of one even film."""
    root = tmp_path / "films"
    for label in ("a", "b"):
        for number in range(3):
            folder = root / label / str(number)
            folder.mkdir(parents=True)
            make_films(MP4, "variable rate", folder)
    even = root / "a" / "even"
    even.mkdir()
    make_films(MP4, "no sound", even)
    return load_dataset("video_folder", directory=root, resolution=32, frames=6)


def numbers(clip):
    """The numbers of frames, by their brightness."""
    return np.rint((clip[:, 20:, 28:].mean((1, 2, 3)) - 60) / 8).astype(int).tolist()


def by_film(dataset, **fields):
    loader = make_loader(
        dataset.train, batch_size=1, frames=6, height=32, width=48, shuffle=False, repeat=False,
        seed=0, **fields,
    )  # fmt: skip
    paths = {record.index: record.path for record in dataset.train.records}
    return {paths[int(batch["index"][0])]: numbers(batch["clip"][0]) for batch in loader}


@pytest.mark.parametrize("decoded", [True, False])
def test_clips_are_spread_evenly_in_time(uneven, decoded):
    clips = by_film(uneven, augmentation=None, cache_decoded=decoded)
    # 68 moments: frames 0 to 11 have one each, 12 to 22 five, 23 one; 5.7, 17, 28.3, … are shown.
    for path, frames in clips.items():
        expected = [2, 6, 10, 14, 18, 22] if "even" in path else [5, 13, 15, 17, 19, 22]
        assert frames == expected, path


def test_random_clips_and_windows_go_by_time_too(uneven):
    drawn = by_film(uneven, augmentation=Augmentation())
    windows = by_film(uneven, augmentation=None, stride=2)
    for path, frames in drawn.items():
        if "even" not in path:
            # All but the first sixth of the time belongs to the second half.
            assert sum(number >= 12 for number in frames[1:]) == 5
    for path, frames in windows.items():
        # Steps of 2 × 68 / 24 moments: a frame of the second half has five.
        assert frames == ([6, 8, 10, 12, 14, 16] if "even" in path else [13, 14, 15, 16, 17, 18])


def test_times_travel_to_other_processes(uneven):
    source = pickle.loads(pickle.dumps(uneven.train))
    for example, record in zip(source, source.records, strict=True):
        times = example["frames"].times
        assert (times is not None) == record.uneven == ("even" not in record.path)
        if times is not None:
            assert times[-1] == 6_800_000


def test_no_more_films_wait_than_there_are_threads(tmp_path, monkeypatch):
    for number in range(12):
        file = tmp_path / "films" / "a" / f"{number}.avi"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    builder = VideoFolder(directory=tmp_path / "films", resolution=16)
    started = []
    monkeypatch.setattr(builder, "read_file", lambda file, size: started.append(file))
    clips = [clip for clips in builder._plan.values() for clip in clips]
    for number, _ in enumerate(builder.render(clips), start=1):
        assert len(started) < number + 2
    assert len(started) == 12


def test_a_long_film_is_never_whole_in_memory(tmp_path, write_video):
    file = write_video(tmp_path / "films" / "a" / "long.avi", frames=400)
    builder = VideoFolder(directory=tmp_path / "films", resolution=48)
    tracemalloc.start()
    clip = builder.read_file(file, 48)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    decoded = 400 * 48 * 72 * 3
    assert (len(clip.frames), clip.height, clip.width, clip.times) == (400, 48, 72, None)
    assert most < decoded / 4
