"""Folds: whole groups, each example in one test split, whatever is named and whatever is read."""

import dataclasses
import re
import shutil
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxmoe.config import ImageFolderConfig, VideoFolderConfig
from jaxmoe.data import load_dataset
from jaxmoe.data.listing.films import film_of
from jaxmoe.data.listing.folds import deal_folds
from jaxmoe.data.listing.holdout import hold_out
from jaxmoe.data.listing.manifest import read_manifest
from jaxmoe.data.loading.source import ClipRecord
from tests.commands.tiny import TINY

SEQUENCES = 10
PATHS = [
    f"{label}/seq{s}_{3 * s + i}.png"
    for s in range(1, SEQUENCES + 1)
    for i, label in enumerate(("hug", "kick", "point"))
]


def sequence(path: str) -> str:
    return re.search(r"seq\d+", path)[0]


@pytest.fixture
def folder(tmp_path):
    """Three classes of ten sequences, and a manifest that calls one of them test."""
    rows = ["path,label,split,group"]
    for number, path in enumerate(PATHS):
        file = tmp_path / "d" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(file)
        split = "test" if sequence(path) == "seq9" else "train"
        rows.append(f"{path},{path.split('/')[0]},{split},{'ab'[number % 2]}")
    (tmp_path / "d" / "listed.csv").write_text("\n".join(rows))
    return tmp_path / "d"


def load(folder, **fields):
    return load_dataset("image_folder", directory=folder, resolution=4, **fields)


def paths(source):
    return {record.path for record in source.records}


def test_every_example_is_tested_once_and_no_sequence_is_parted(folder):
    fields = {"folds": 5, "group_pattern": r"seq\d+", "validation_fraction": 0.2}
    found = [load(folder, fold=fold, **fields) for fold in range(5)]
    tested = [path for dataset in found for path in sorted(paths(dataset.test))]
    assert sorted(tested) == sorted(PATHS)
    for fold, dataset in enumerate(found):
        sets = [{*map(sequence, paths(source))} for source in dataset.splits.values()]
        assert sets[2] == {f"seq{fold + 1}", f"seq{fold + 6}"}  # seq10 is the last, not the second
        assert sum(map(len, sets)) == len(set.union(*sets)) == SEQUENCES
        assert dataset.held_out == ("validation",)
        assert dataset.counts == {"train": 18, "validation": 6, "test": 6}
        assert dataset.notes == (
            f"test is fold {fold} of 0 to 4, 2 of 10 groups; what folders or a manifest call "
            "test is ignored",
        )
        for source in dataset.splits.values():
            for place, record in enumerate(source.records):
                pixels = source[place]["frames"][np.array([0])]
                assert set(pixels.ravel()) == {PATHS.index(record.path)}
    other = load(folder, fold=0, seed=1, **fields)
    assert paths(other.test) == paths(found[0].test)
    assert paths(other.validation) != paths(found[0].validation)


def test_splits_of_a_manifest_are_ignored_and_its_column_names_the_groups(folder):
    fields = {"manifest": "listed.csv", "folds": 2}
    named = load(folder, manifest="listed.csv", group_pattern=r"seq\d+")
    assert {*map(sequence, paths(named.test))} == {"seq9"}
    assert not {*map(sequence, paths(named.train))} & {*map(sequence, paths(named.validation))}
    first, second = (load(folder, fold=fold, **fields) for fold in (0, 1))
    assert first.folder == named.folder  # nothing is prepared anew
    assert paths(first.test) == {*PATHS[::2]}
    assert paths(second.test) == {*PATHS[1::2]}
    by_pattern = load(folder, group_pattern=r"seq\d+", **fields)
    assert {*map(sequence, paths(by_pattern.test))} == {f"seq{s}" for s in range(1, 11, 2)}


def test_the_column_of_groups_also_keeps_validation_apart(folder):
    rows = [f"{path},{path.split('/')[0]},train,{sequence(path)}" for path in PATHS]
    (folder / "groups.csv").write_text("\n".join(["path,label,split,group", *rows]))
    fields = {"folds": 5, "fold": 2}
    by_column = load(folder, manifest="groups.csv", **fields)
    by_pattern = load(folder, group_pattern=r"seq\d+", **fields)
    for split, source in by_pattern.splits.items():
        assert paths(by_column.splits[split]) == paths(source)


def test_without_a_pattern_films_are_the_groups_and_else_files(tmp_path):
    for film in range(1, 6):
        for clip in (1, 2):
            for name in (f"YoYo/v_YoYo_g{film:02}_c{clip:02}.png", f"other/{film}{clip}.png"):
                (tmp_path / name).parent.mkdir(exist_ok=True)
                Image.fromarray(np.full((4, 4), 9 * film + clip, np.uint8)).save(tmp_path / name)
    found = [load(tmp_path, folds=5, fold=fold) for fold in range(5)]
    for dataset in found:
        tested = Counter(map(film_of, paths(dataset.test)))
        assert sorted(tested.values()) == [2, 2]  # a film, and two files
        assert not tested.keys() & {*map(film_of, paths(dataset.train))} - {None}
    assert len(set.union(*(paths(dataset.test) for dataset in found))) == 20


def test_a_class_of_the_named_test_split_alone_is_one_of_a_fold(folder):
    for path in PATHS:
        split = "test" if path.startswith("kick") else "train"
        (folder / split / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).rename(folder / split / path)
    for label in ("hug", "kick", "point"):
        (folder / label).rmdir()
    with pytest.raises(ValueError, match=r"label 'kick' .* has no file in train"):
        load(folder)
    assert load(folder, folds=5, group_pattern=r"seq\d+").counts["test"] == 6


def test_a_file_that_cannot_be_read_moves_no_other_to_another_fold(folder):
    fields = {"folds": 5, "fold": 3, "group_pattern": r"seq\d+"}
    before = paths(load(folder, **fields).test)
    for path in PATHS:
        if sequence(path) == "seq2":
            (folder / path).write_bytes(b"none")
    assert paths(load(folder, **fields).test) == before


def test_the_sequences_of_ut_interaction_make_five_folds_of_four(real_data):
    root = real_data / "ut_interaction"
    config = VideoFolderConfig(folds=5, group_pattern=r"seq\d+")
    files = read_manifest(root / "manifest.csv", root).files
    groups = {file.path: config.group_of(file.path, file.columns) for file in files}
    folds = deal_folds(groups, 5)
    assert len(folds) == 119
    tested = [{groups[path] for path in folds if folds[path] == fold} for fold in range(5)]
    assert tested == [{f"seq{s:02}" for s in range(1 + f, 21, 5)} for f in range(5)]
    assert {path for path in folds if folds[path] == 4} == {
        file.path for file in files if file.split == "test"
    }


@given(
    st.dictionaries(st.text(max_size=4), st.text("a01²", max_size=3), min_size=2, max_size=12),
    st.integers(2, 9),
)
def test_groups_are_whole_and_folds_have_as_many_of_them_but_one(groups, folds):
    names = set(groups.values())
    if len(names) < folds:
        with pytest.raises(
            ValueError, match=rf"^data\.folds: {folds} is more than the {len(names)}"
        ):
            deal_folds(groups, folds)
        return
    found = deal_folds(groups, folds)
    assert found.keys() == groups.keys()
    of_group = {group: {found[p] for p in groups if groups[p] == group} for group in names}
    assert all(len(fold) == 1 for fold in of_group.values())
    sizes = Counter(fold for (fold,) in of_group.values())
    assert set(sizes) == {*range(folds)}
    assert max(sizes.values()) - min(sizes.values()) <= 1


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=2, max_size=50),
    st.floats(0.01, 0.9),
    st.integers(0, 5),
)
def test_a_source_of_several_classes_is_held_out_whole(pairs, fraction, seed):
    records = [
        ClipRecord(i, "train", i, label, 1, 1, 1, f"{source} {i}")
        for i, (label, source) in enumerate(pairs)
    ]
    kept, held = hold_out(records, fraction, seed, lambda path: path.split()[0])
    assert sorted(r.index for r in kept + held) == [*range(len(pairs))]
    assert {record.label for record in kept} == {label for label, _ in pairs}
    sources = {label: {s for y, s in pairs if y == label} for label, _ in pairs}
    whole = {s for y in sources if len(sources[y]) > 1 for s in sources[y]}
    parted = {s for y in sources if len(sources[y]) == 1 for s in sources[y]}
    both = {r.path.split()[0] for r in kept} & {r.path.split()[0] for r in held}
    assert not both & {str(s) for s in whole - parted}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folds": 5, "fold": 5}, r"data\.fold: 5 .* below data\.folds, 5"),
        ({"fold": 1}, r"data\.fold: 1 .* expected data\.folds with it"),
        ({"folds": 1}, r"data\.folds: 1 .* at least 2"),
        ({"folds": 2, "fold": -1}, r"data\.fold: -1 .* ≥ 0"),
        ({"folds": 31}, r"data\.folds: 31 is more than the 30 groups .* at most 30"),
        ({"folds": 11, "group_pattern": r"seq\d+"}, r"data\.folds: 11 .* the 10 groups"),
        ({"folds": 2, "group_pattern": "seq("}, r"data\.group_pattern: 'seq\(' .* regular"),
        ({"folds": 2, "group_pattern": "9"}, r"data\.group_pattern: '9' is nowhere in hug/seq"),
        ({"folds": 3, "group_pattern": r"^\w+"}, r"data\.directory: label 'hug' .* in train"),
    ],
)
def test_folds_that_cannot_be_are_one_line(folder, fields, message):
    with pytest.raises(ValueError, match="^" + message) as raised:
        load(folder, **fields)
    assert "\n" not in str(raised.value)


@pytest.fixture
def first(folder, tmp_path):
    """An experiment on the first fold, whose run is in `first`."""
    from jaxmoe.runs.folder import write_description

    data = ImageFolderConfig(
        directory=str(folder), resolution=4, height=4, folds=5, group_pattern=r"seq\d+"
    )
    experiment = dataclasses.replace(TINY, data=data)
    write_description(tmp_path / "first", experiment, load_dataset(data))
    return experiment


def test_a_start_from_a_run_of_another_fold_is_refused(first, tmp_path):
    from jaxmoe.runs.run import train
    from jaxmoe.training.stages import Silent

    training = dataclasses.replace(TINY.training, initialize_from=str(tmp_path / "first"))
    run = dataclasses.replace(TINY.run, directory=str(tmp_path / "second"))
    for fold, refusal in (
        (1, r"^training\.initialize_from: .* other train examples"),
        (0, r"^training\.initialize_from: .* not trained to its end"),
    ):
        other = dataclasses.replace(first.data, fold=fold)
        begun = dataclasses.replace(first, data=other, training=training, run=run)
        with (
            jax.numpy_dtype_promotion("standard"),  # optax raises a float to an integer count
            pytest.raises(ValueError, match=refusal),
        ):
            train(begun, Silent())


def test_a_fold_moves_with_its_files_and_other_files_are_judged_whole(first, folder, tmp_path):
    from jaxmoe.runs.other_clips import open_clips

    moved = shutil.move(folder, tmp_path / "moved")
    dataset, other = open_clips(tmp_path / "first", first, {"directory": str(moved)})
    assert other is None
    assert {*map(sequence, paths(dataset.test))} == {"seq1", "seq6"}
    for place, label in enumerate(("hug", "kick", "point")):
        (tmp_path / "new" / label).mkdir(parents=True)
        Image.fromarray(np.full((4, 4), place, np.uint8)).save(tmp_path / "new" / label / "1.png")
    dataset, other = open_clips(tmp_path / "first", first, {"directory": str(tmp_path / "new")})
    assert (len(dataset.test), other.n) == (3, 3)
