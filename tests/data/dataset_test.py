"""`load_dataset`: splits, reports, the cache, and one clear line for a wrong argument."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmoe.data import describe, load_dataset
from jaxmoe.data.listing.holdout import hold_out
from jaxmoe.data.listing.official_splits import hmdb51_source, ucf101_source
from jaxmoe.data.loading.source import ClipRecord


def _load(folder, **kwargs):
    kwargs = {"resolution": 16, "frames": 4, **kwargs}
    return load_dataset("video_folder", directory=folder, **kwargs)


def test_examples_come_back_as_they_are_on_disk(folder):
    dataset = _load(folder)
    assert dataset.classes == ("hug [a]", "kick+")
    assert dataset.counts == {"train": 8, "validation": 2, "test": 2}
    assert dataset.held_out == ()
    assert dataset.skipped == dataset.padded == ()
    for split, source in dataset.splits.items():
        for i in range(len(source)):
            example = source[i]
            assert (folder / example["path"]).is_file()
            assert example["path"].split("/")[:2] == [split, dataset.classes[example["label"]]]
            frames = example["frames"][np.arange(len(example["frames"]))]
            assert frames.shape[1:] == (16, 24, 3)
            expected = 20 + 10 * np.arange(len(frames))
            np.testing.assert_allclose(frames.mean((1, 2, 3)), expected, atol=5)
    indices = [
        e["index"] for s in dataset.splits.values() for e in map(s.__getitem__, range(len(s)))
    ]
    assert sorted(indices) == list(range(12))
    with pytest.raises(IndexError):
        dataset.test[2]


def test_frames_are_decoded_in_the_order_asked_for(folder):
    frames = _load(folder).train[0]["frames"]
    brightness = frames[np.array([4, 0, 4])].mean((1, 2, 3))
    np.testing.assert_allclose(brightness, [60, 20, 60], atol=5)


def test_unusable_videos_are_reported_on_every_run(folder):
    (folder / "train/kick+/empty.avi").write_bytes(b"")
    (folder / "train/kick+/broken.avi").write_bytes(b"\x00\x01" * 999)
    (folder / "test/kick+/notes.txt").write_text("not a video")
    for _ in range(2):
        dataset = _load(folder)
        reasons = dict(dataset.skipped)
        assert reasons["train/kick+/empty.avi"] == "the file is empty"
        assert "cannot be decoded" in reasons["train/kick+/broken.avi"]
        assert set(reasons) == {
            "train/kick+/empty.avi",
            "train/kick+/broken.avi",
            "test/kick+/notes.txt",
        }
        assert dataset.counts == {"train": 8, "validation": 2, "test": 2}


def test_short_videos_are_padded_and_reported(folder):
    padded = _load(folder, frames=7, short_videos="pad")
    assert len(padded.padded) == 8
    assert padded.counts["train"] == 8
    assert ("train/kick+/a b.avi", "6 frames, fewer than the 7 of a clip") in padded.padded


def test_short_videos_can_be_left_out(folder, write_video):
    write_video(folder / "train/kick+/short.avi", frames=2)
    dataset = _load(folder, frames=4, short_videos="skip")
    assert dataset.skipped == (("train/kick+/short.avi", "2 frames, fewer than the 4 of a clip"),)
    assert dataset.counts["train"] == 8
    # The other policy reads the same prepared records.
    assert _load(folder, frames=4, short_videos="pad").folder == dataset.folder


def test_a_stride_needs_longer_videos(folder):
    dataset = _load(folder, frames=4, stride=2, short_videos="pad")
    assert dict(dataset.padded)["train/kick+/a b.avi"] == "6 frames, fewer than the 7 of a clip"
    assert not _load(folder, frames=3, stride=2, short_videos="pad").padded


def test_a_manifest_of_another_dataset_is_refused(folder):
    with pytest.raises(ValueError, match=r"data\.manifest: ucf101 has no such field; video_folder"):
        load_dataset("ucf101", directory=folder, manifest="m.csv")


def test_clips_of_one_film_are_held_out_together():
    paths = [f"Archery/v_Archery_g{g:02}_c{c:02}.avi" for g in range(8) for c in range(5)]
    records = [ClipRecord(i, "train", i, 0, 1, 1, 1, path) for i, path in enumerate(paths)]
    kept, held = hold_out(records, 0.2, 0, ucf101_source)
    assert len(kept) + len(held) == 40
    assert 8 <= len(held) <= 12
    films = [{ucf101_source(record.path) for record in part} for part in (kept, held)]
    assert not films[0] & films[1]
    assert hmdb51_source("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi").endswith(
        "/April_09"
    )


def test_a_split_without_a_usable_video_is_an_error_that_names_one(folder):
    for file in (folder / "test").rglob("*.avi"):
        file.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"split 'test' is usable.*test/kick\+/t\.avi") as e:
            _load(folder)
        assert "\n" not in str(e.value)


def test_a_split_with_nothing_but_short_videos_is_an_error(folder):
    with pytest.raises(ValueError, match=r"split 'train' has no usable example; 8 were skipped"):
        _load(folder, frames=7, short_videos="skip")


def _built(dataset):
    return {file: file.stat().st_mtime_ns for file in dataset.folder.rglob("*record*")}


def test_unchanged_input_is_not_built_again_and_changed_input_is(folder, write_video):
    calls = []
    first = _load(folder, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 12) for i in range(1, 13)]
    again = _load(folder, progress=lambda *_: pytest.fail("built again"))
    assert _built(again) == _built(first)

    assert _load(folder, resolution=20).folder != first.folder
    os.utime(folder / "test/kick+/t.avi", ns=(1, 1))
    touched = _load(folder)
    assert touched.folder != first.folder
    write_video(folder / "train/kick+/new.avi")
    assert _load(folder).counts["train"] == 9
    rows = [f"{f.relative_to(folder)},x,train" for f in folder.rglob("*.avi")]
    (folder / "fold.csv").write_text("\n".join(["path,label,split", *rows]))
    fold = _load(folder, manifest="fold.csv")
    assert fold.classes == ("x",)
    assert fold.folder != touched.folder


def test_another_manifest_makes_another_fold(real_data, tmp_path):
    rows = (real_data / "ut_interaction/manifest.csv").read_text().splitlines()[1:7]
    paths = [row.split(",")[0] for row in rows]

    def fold(name, test):
        lines = [f"{path},hug,{'test' if i == test else 'train'}" for i, path in enumerate(paths)]
        (tmp_path / name).write_text("\n".join(["path,label,split", *lines]))
        dataset = load_dataset(
            "video_folder",
            directory=real_data / "ut_interaction",
            manifest=tmp_path / name,
            resolution=16,
        )
        (record,) = dataset.test.records
        return record

    first, second = fold("1.csv", 1), fold("2.csv", 2)
    assert (first.path, second.path) == (paths[1], paths[2])
    assert (first.index, second.index) == (1, 2)  # the index does not depend on the fold


def test_without_splits_test_and_validation_are_held_out(tmp_path, write_video):
    for label in "ab":
        for i in range(6):
            write_video(tmp_path / "v" / label / f"{i}.avi")
    dataset = _load(tmp_path / "v")
    assert dataset.held_out == ("test", "validation")
    assert dataset.counts == {"train": 8, "validation": 2, "test": 2}
    sets = [{r.path for r in source.records} for source in dataset.splits.values()]
    assert len(set.union(*sets)) == 12
    assert [{r.label for r in s.records} for s in dataset.splits.values()] == [{0, 1}] * 3
    assert _load(tmp_path / "v").test.records == dataset.test.records
    others = [_load(tmp_path / "v", seed=seed).test.records for seed in range(1, 6)]
    assert any(records != dataset.test.records for records in others)
    for record in dataset.validation.records:
        assert record.split == "train"


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 9)
)
def test_hold_out_is_stratified_and_loses_nothing(labels, fraction, seed):
    records = [ClipRecord(i, "train", i, y, 1, 1, 1, str(i)) for i, y in enumerate(labels)]
    kept, held = hold_out(records, fraction, seed)
    assert sorted(r.index for r in kept + held) == list(range(len(labels)))
    for label in set(labels):
        n = labels.count(label)
        out = sum(r.label == label for r in held)
        assert n - out >= 1
        assert out >= (n > 1)
        assert abs(out - fraction * n) <= 1
    assert hold_out(records, fraction, seed) == (kept, held)


def _kill_while_building(folder, cache):
    def die(done, total):
        if done == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    _load(folder, cache=cache, progress=die)


def test_a_build_killed_half_way_leaves_nothing_that_is_taken_for_data(folder, tmp_path):
    cache = tmp_path / "killed"
    process = multiprocessing.get_context("spawn").Process(
        target=_kill_while_building, args=(folder, cache)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(cache.rglob("incomplete*"))
    dataset = _load(folder, cache=cache)
    assert dataset.counts == {"train": 8, "validation": 2, "test": 2}
    assert not list(cache.rglob("incomplete*"))


def _load_and_report(folder, cache, queue):
    built = []
    dataset = _load(folder, cache=cache, progress=lambda *_: built.append(1))
    queue.put((len(built), dataset.counts["train"]))


def test_processes_that_start_together_build_once(folder, tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    arguments = (folder, tmp_path / "shared", queue)
    processes = [context.Process(target=_load_and_report, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert results == [(0, 8), (12, 8)]


def test_a_file_name_that_is_no_unicode(tmp_path, write_video):
    for name in (b"a\xff.avi", b"b.avi", b"c.avi"):
        write_video(tmp_path / "v" / "run" / os.fsdecode(name.replace(b"\xff", b"x")))
    os.rename(tmp_path / "v/run/ax.avi", os.fsencode(tmp_path / "v/run") + b"/a\xff.avi")
    dataset = _load(tmp_path / "v")
    assert dataset.skipped == ()
    paths = {source[i]["path"] for source in dataset.splits.values() for i in range(len(source))}
    assert os.fsencode(min(paths)) == b"run/a\xff.avi"


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (
            ValueError,
            r"data\.name: .*'video_foldr'.*did you mean video_folder\?",
            {"name": "video_foldr"},
        ),
        (
            FileNotFoundError,
            r"data\.directory: no such directory: /no/where",
            {"directory": "/no/where"},
        ),
        (ValueError, r"data\.directory: None is not accepted", {"directory": None}),
        (FileNotFoundError, r"data\.manifest: no such file: .*no\.csv", {"manifest": "no.csv"}),
        (ValueError, r"data\.resolution: 0", {"resolution": 0}),
        (ValueError, r"data\.frames: 0", {"frames": 0}),
        (
            ValueError,
            r"data\.short_videos: 'drop' is not accepted; expected one of pad, skip",
            {"short_videos": "drop"},
        ),
        (ValueError, r"data\.seed: -1", {"seed": -1}),
        (ValueError, r"data\.validation_fraction: 1", {"validation_fraction": 1}),
        (
            ValueError,
            r"data\.train_clips: 0",
            {"name": "synthetic_actions", "train_clips": 0},
        ),
        (
            ValueError,
            r"data\.resolution: 4",
            {"name": "synthetic_actions", "resolution": 4},
        ),
        (
            FileNotFoundError,
            r"data\.directory: .*trainlist01",
            {"name": "ucf101", "directory": "."},
        ),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path, error, message, arguments):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.avi").write_bytes(b"")
    if "name" not in arguments:
        arguments = {"name": "video_folder", "directory": tmp_path, **arguments}
    with pytest.raises(error, match="^" + message) as raised:
        load_dataset(**arguments)
    assert "\n" not in str(raised.value)


def test_describe_counts_what_is_there(folder):
    (folder / "train/kick+/empty.avi").write_bytes(b"")
    (folder / "train/kick+/a b.avi").unlink()
    summary = describe(_load(folder, frames=7))
    train = summary.splits["train"]
    assert train.clips_per_class == {"hug [a]": 4, "kick+": 3}
    assert (train.clips, train.fewest_frames, train.median_frames, train.most_frames) == (
        7,
        6,
        6,
        6,
    )
    assert summary.splits["test"].most_frames == 8
    assert summary.skipped == (("train/kick+/empty.avi", "the file is empty"),)
    assert len(summary.padded) == 7
    assert json.loads(json.dumps(dataclasses.asdict(summary)))["classes"] == ["hug [a]", "kick+"]


def test_building_and_loading_import_no_tensorflow_and_print_nothing(folder):
    program = """
import sys
from jaxmoe.data import Augmentation, load_dataset, make_loader
dataset = load_dataset("video_folder", directory=sys.argv[1], resolution=16, frames=4)
loader = make_loader(dataset.train, batch_size=4, frames=4, height=16,
                     augmentation=Augmentation(), shuffle=True, repeat=True, seed=0)
iterator = iter(loader)
assert next(iterator)["clip"].shape == (4, 4, 16, 16, 3)
iterator.close()
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_the_package_does_not_import_the_heavy_libraries():
    program = (
        "import sys, jaxmoe.data; "
        "print([m for m in ('tensorflow_datasets', 'grain', 'av') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["synthetic_actions", "synthetic_shapes", "synthetic_scenes"])
def test_rendered_data_has_32_pixels_where_none_are_asked_for(name):
    fields = {"train_clips": 10, "validation_clips": 10, "test_clips": 10}
    fields |= {"frames": 2} if name == "synthetic_actions" else {}
    assert load_dataset(name, **fields).train.smallest == (32, 32)


@pytest.mark.parametrize("name", ["video_folder", "segmentation_folder", "npz", "cifar10"])
def test_the_home_of_nobody_is_one_line(name):
    with pytest.raises(ValueError, match=r"^data\.directory: ~nobody-here/data begins with"):
        load_dataset(name, directory="~nobody-here/data")


def test_a_manifest_in_the_home_of_nobody_is_one_line(folder):
    with pytest.raises(ValueError, match=r"^data\.manifest: ~nobody-here/m\.csv begins with"):
        _load(folder, manifest="~nobody-here/m.csv")
