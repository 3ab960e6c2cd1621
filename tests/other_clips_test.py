"""A run is judged by its own test split, wherever it lies, or by other clips of its classes."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxmoe.config import Experiment, ImageFolderConfig
from jaxmoe.data import load_dataset
from jaxmoe.runs.folder import write_description
from jaxmoe.runs.other_clips import open_clips

CLASSES = ("car", "dog", "tree")


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)


def write(folder, numbers):
    """An image of each number in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(picture(number)).save(folder / f"{number:03}.png")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A run that was trained on `own`: its folder and its experiment."""
    monkeypatch.setenv("JAXMOE_CACHE", str(tmp_path / "cache"))
    for place, name in enumerate(CLASSES):
        for offset, split in enumerate(("train", "val", "test")):
            first = 100 * place + 10 * offset
            write(tmp_path / "own" / split / name, range(first, first + 3))
    experiment = Experiment(
        data=ImageFolderConfig(directory=str(tmp_path / "own"), height=8, resolution=8)
    )
    run = tmp_path / "run"
    write_description(run, experiment, load_dataset(experiment.data))
    return run, experiment


def test_its_own_clips_are_its_own_wherever_they_lie(made, tmp_path):
    run, experiment = made
    dataset, other = open_clips(run, experiment, {})
    assert other is None
    shutil.copytree(tmp_path / "own", tmp_path / "copy")
    assert open_clips(run, experiment, {"directory": str(tmp_path / "copy")})[1] is None
    shutil.move(tmp_path / "own", tmp_path / "elsewhere")
    moved, other = open_clips(run, experiment, {"directory": str(tmp_path / "elsewhere")})
    assert other is None
    assert moved.test.digests() == dataset.test.digests()


def test_class_folders_alone_are_a_test_set_of_their_own(made, tmp_path):
    run, experiment = made
    write(tmp_path / "new" / "tree", [500, 501])
    write(tmp_path / "new" / "dog", [502])
    directory = str(tmp_path / "new")
    dataset, other = open_clips(run, experiment, {"directory": directory})
    assert [record.label for record in dataset.test.records] == [1, 2, 2]  # the run's numbers
    assert dataset.classes == CLASSES
    assert (other.n, other.in_training, other.directory) == (3, 0, directory)
    assert "not the run's own test split: 3 of" in other.notes[0]
    assert other.digest in other.notes[0]
    assert other.notes[1:] == ("none of them is of the classes car",)
    assert len(dataset.train) == 9  # the run's own

    shutil.move(tmp_path / "new" / "tree" / "500.png", tmp_path / "new" / "tree" / "z.png")
    renamed = open_clips(run, experiment, {"directory": directory})[1]
    assert renamed.digest == other.digest
    write(tmp_path / "new" / "dog", [503])
    assert open_clips(run, experiment, {"directory": directory})[1].digest != other.digest


@pytest.mark.parametrize("layout", ["test/car", "TEST/car", "car"])
def test_clips_that_the_run_learned_are_counted(made, tmp_path, layout):
    run, experiment = made
    write(tmp_path / "new" / layout, [600])
    for number in (0, 1):  # under other names
        Image.fromarray(picture(number)).save(tmp_path / "new" / layout / f"other{number}.png")
    other = open_clips(run, experiment, {"directory": str(tmp_path / "new")})[1]
    assert (other.n, other.in_training) == (3, 2)
    assert "2 of the 3 are in the run's training split" in other.notes[1]


def test_a_manifest_of_test_clips_alone_is_a_test_set(made, tmp_path):
    run, experiment = made
    rows = [("train/car/000.png", "car", "test"), ("test/dog/120.png", "dog", "test")]
    with (tmp_path / "judge.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    manifest = str(tmp_path / "judge.csv")
    dataset, other = open_clips(run, experiment, {"manifest": manifest})
    assert [record.path for record in dataset.test.records] == [path for path, *_ in rows[::-1]]
    assert (other.manifest, other.in_training) == (manifest, 1)


def test_other_pictures_under_the_same_names_are_others(made, tmp_path):
    run, experiment = made
    shutil.copytree(tmp_path / "own", tmp_path / "noisy")
    Image.fromarray(picture(999)).save(tmp_path / "noisy" / "test" / "dog" / "120.png")
    dataset, other = open_clips(run, experiment, {"directory": str(tmp_path / "noisy")})
    assert (other.n, other.in_training) == (9, 0)
    assert len(dataset.test) == 9  # its test split, not all of it


def test_arrays_judge_a_run_of_files(made, tmp_path):
    run, experiment = made
    images = np.stack([picture(number) for number in (0, 700)])
    file = tmp_path / "judge.npz"
    np.savez(file, x_test=images, y_test=[1, 0], classes=["tree", "car"])
    dataset, other = open_clips(run, experiment, {"name": "npz", "directory": str(file)})
    assert [record.label for record in dataset.test.records] == [0, 2]
    assert (other.name, other.in_training) == ("npz", 1)
    np.savez(file, x_test=images.repeat(2, 1).repeat(2, 2), y_test=[1, 0], classes=["tree", "car"])
    dataset, _ = open_clips(run, experiment, {"name": "npz", "directory": str(file)})
    assert dataset.test.smallest == (16, 16)  # their own size; the run's is 8


def test_without_the_runs_own_clips_its_classes_are_known_and_it_says_what_is_not(made, tmp_path):
    run, experiment = made
    shutil.rmtree(tmp_path / "own")
    write(tmp_path / "new" / "dog", [800])
    fields = {"directory": str(tmp_path / "new")}
    dataset, other = open_clips(run, experiment, fields)
    assert other.in_training is None
    assert "training examples cannot be read" in other.notes[1]
    assert (dataset.classes, len(dataset.train)) == (CLASSES, 0)
    description = json.loads((run / "run.json").read_text())
    del description["classes"]  # as of a run before they were written down
    (run / "run.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="its own examples, which do, cannot be read"):
        open_clips(run, experiment, fields)


@pytest.mark.parametrize(
    ("folder", "fields", "said"),
    [
        ("cat", {}, "'cat', which is no class of the run; its classes are car, dog, tree"),
        ("Dog", {}, "'Dog', which is no class of the run; .*did you mean dog"),
        ("dog", {"name": "video_folder"}, "video_folder has other inputs or labels than image_fo"),
        (
            "dog",
            {"name": "image_foldr"},
            "'image_foldr' is not accepted; did you mean image_folder",
        ),
        ("dog", {"manifest": "none.csv"}, "no such file: none.csv"),
    ],
)
def test_what_cannot_judge_it_is_refused_by_name(made, tmp_path, folder, fields, said):
    run, experiment = made
    write(tmp_path / "new" / folder, [900])
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        open_clips(run, experiment, {"directory": str(tmp_path / "new"), **fields})


def test_two_splits_without_a_test_are_refused(made, tmp_path):
    run, experiment = made
    for split in ("train", "val"):
        write(tmp_path / "new" / split / "dog", [900 + len(split)])
    with pytest.raises(ValueError, match="splits train and validation and none called test"):
        open_clips(run, experiment, {"directory": str(tmp_path / "new")})
