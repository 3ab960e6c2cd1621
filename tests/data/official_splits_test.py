"""UCF-101 and HMDB-51: official split files, real clips, the layouts that people have."""

import pytest

from jaxmoe.data import load_dataset
from jaxmoe.data.listing.official_splits import list_hmdb51, list_ucf101

UCF_TRAIN = [
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
    # A copy under another group, so that a class has two and one can be held out.
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g98_c01.avi",
    "BaseballPitch/v_BaseballPitch_g01_c01.avi",
    "Biking/v_Biking_g06_c03.avi",
    "HeadMassage/v_HeadMassage_g01_c01.avi",
    "LongJump/v_LongJump_g01_c04.avi",
]
UCF_TEST = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c05.avi"]
HMDB = {
    "climb": "(HQ)_Rock_Climbing_-_Free_Solo_Speed_Climb_-_Dan_Osman_climb_f_cm_np1_le_med_2.avi",
    "golf": "Golf_Tips_-_Hit_The_Driver_300+_Yards!!!_golf_f_nm_np1_fr_med_0.avi",
    "punch": "AdvancedBoxingTechniquesandExercises_punch_u_nm_np1_ba_med_23.avi",
}


def _ucf(root, real_data, videos="UCF-101", lists="ucfTrainTestlist"):
    for path in UCF_TRAIN + UCF_TEST:
        target = root / videos / path
        target.parent.mkdir(parents=True, exist_ok=True)
        original = target.name.replace("g98", "g01")
        target.write_bytes((real_data / "clips" / "ucf101" / original).read_bytes())
    folder = root / lists
    folder.mkdir(parents=True, exist_ok=True)
    classes = sorted({path.split("/")[0] for path in UCF_TRAIN}, reverse=True)
    numbered = [f"{i} {name}" for i, name in enumerate(classes, start=1)]
    (folder / "classInd.txt").write_text("\r\n".join(numbered) + "\r\n\r\n")
    train = [f"{path} {classes.index(path.split('/')[0]) + 1}" for path in UCF_TRAIN]
    (folder / "trainlist01.txt").write_text("\n".join(train) + "\n")
    (folder / "testlist01.txt").write_text("\n".join(UCF_TEST) + "\n")
    # Split 2 leaves one clip out, so that a wrong number shows.
    (folder / "trainlist02.txt").write_text("\n".join(train[:-1]) + "\n")
    (folder / "testlist02.txt").write_text("\n".join(UCF_TEST) + "\n")
    return classes


def test_ucf101_official_split_of_real_clips(tmp_path, real_data):
    classes = _ucf(tmp_path, real_data)
    dataset = load_dataset("ucf101", directory=tmp_path, split=1, resolution=24)
    assert dataset.classes == tuple(classes)  # the order of classInd.txt, not the alphabet
    assert [r.path for r in dataset.test.records] == UCF_TEST
    paths = {r.path for r in dataset.train.records} | {r.path for r in dataset.validation.records}
    assert paths == set(UCF_TRAIN)
    # Only the class with two training clips can spare one.
    assert [r.path.split("/")[0] for r in dataset.validation.records] == ["ApplyEyeMakeup"]
    assert dataset.skipped == ()
    example = dataset.test[0]
    assert dataset.classes[example["label"]] == "ApplyEyeMakeup"
    assert len(example["frames"]) == 146
    assert example["frames"][[0, 145]].shape == (2, 24, 32, 3)


@pytest.mark.parametrize(
    ("videos", "lists", "directory"),
    [
        ("UCF-101", "ucfTrainTestlist", "."),
        ("UCF-101", "ucfTrainTestlist", "UCF-101"),
        (".", "ucfTrainTestlist", "."),
        ("UCF-101", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "."),
        ("UCF-101", ".", "."),
    ],
)
def test_ucf101_layouts(tmp_path, real_data, videos, lists, directory):
    _ucf(tmp_path, real_data, videos, lists)
    listing = list_ucf101(tmp_path / directory, 1)
    assert all(video.file.is_file() for video in listing.files)
    assert [v.path for v in listing.files] == sorted(UCF_TRAIN + UCF_TEST)


def test_ucf101_splits_differ(tmp_path, real_data):
    _ucf(tmp_path, real_data)
    paths = [{v.path for v in list_ucf101(tmp_path, split).files} for split in (1, 2)]
    assert paths[0] - paths[1] == {UCF_TRAIN[-1]}


def test_missing_split_files_say_where_to_extract_what(tmp_path):
    (tmp_path / "UCF-101").mkdir()
    with pytest.raises(FileNotFoundError, match=r"data\.directory: .*trainlist01.*extract UCF101"):
        list_ucf101(tmp_path, 1)
    with pytest.raises(FileNotFoundError, match=r"data\.directory: .*_test_split1.*extract test_"):
        list_hmdb51(tmp_path, 1)


def test_split_files_without_videos_name_an_expected_one(tmp_path, real_data):
    _ucf(tmp_path, real_data)
    videos = list((tmp_path / "UCF-101").rglob("*.avi"))
    for file in videos:
        file.unlink()
    with pytest.raises(ValueError, match=r"none of the 7 listed videos.*ApplyEyeMakeup/v_"):
        list_ucf101(tmp_path, 1)


@pytest.mark.parametrize("split", [0, 4, "1"])
def test_an_unknown_official_split_is_named(tmp_path, split):
    with pytest.raises(ValueError, match=r"data\.split: .*accepted are 1, 2, 3"):
        list_ucf101(tmp_path, split)


def _hmdb(root, real_data, videos="."):
    folder = root / "testTrainMulti_7030_splits"
    folder.mkdir(parents=True)
    for label, name in HMDB.items():
        target = root / videos / label / name
        target.parent.mkdir(parents=True)
        target.write_bytes((real_data / "clips" / "hmdb51" / name).read_bytes())
        # The copy is a test video; the official files end their lines with a space.
        copy = f"test of {name}"
        target.with_name(copy).write_bytes(target.read_bytes())
        lines = [f"{name} 1 ", f"{copy} 2 ", "left out of this split.avi 0 "]
        (folder / f"{label}_test_split3.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("videos", [".", "hmdb51_org"])
def test_hmdb51_names_with_spaces_brackets_and_exclamation_marks(tmp_path, real_data, videos):
    _hmdb(tmp_path, real_data, videos)
    listing = list_hmdb51(tmp_path, 3)
    assert listing.classes == ("climb", "golf", "punch")
    assert all(video.file.is_file() for video in listing.files)
    assert {v.path: v.split for v in listing.files} == {
        **{f"{label}/{name}": "train" for label, name in HMDB.items()},
        **{f"{label}/test of {name}": "test" for label, name in HMDB.items()},
    }


def test_hmdb51_loads_and_reports_a_listed_video_that_is_missing(tmp_path, real_data):
    _hmdb(tmp_path, real_data)
    missing = f"test of {HMDB['golf']}"
    (tmp_path / "golf" / missing).unlink()
    lists = tmp_path / "testTrainMulti_7030_splits" / "punch_test_split3.txt"
    other = HMDB["punch"].replace("_med_23", "_med_24")
    (tmp_path / "punch" / other).write_bytes((tmp_path / "punch" / HMDB["punch"]).read_bytes())
    lists.write_text(lists.read_text() + f"{other} 1 \n")
    dataset = load_dataset("hmdb51", directory=tmp_path, split=3, resolution=24)
    assert (f"golf/{missing}", "no such file") in dataset.skipped
    paths = {r.path for source in (dataset.train, dataset.validation) for r in source.records}
    assert paths == {f"{label}/{name}" for label, name in HMDB.items()} | {f"punch/{other}"}


def test_lists_of_another_program_are_read_or_named(tmp_path):
    folder = tmp_path / "ucfTrainTestlist"
    folder.mkdir()
    (tmp_path / "Archery").mkdir()
    (tmp_path / "Archery" / "v_Archery_g01_c01.avi").write_bytes(b"x")
    for encoding in ("utf-16", "utf-8-sig"):
        for name, text in {
            "classInd": "1 Archery\r\n",
            "trainlist01": "Archery/v_Archery_g01_c01.avi 1\r\n",
            "testlist01": "",
        }.items():
            (folder / f"{name}.txt").write_bytes(text.encode(encoding))
        assert list_ucf101(tmp_path, 1).classes == ("Archery",)
    for content, said in (
        (b"Archery\n", r"classInd\.txt: 'Archery' is not"),
        (b"1 \xe9\n", "UTF-8"),
    ):
        (folder / "classInd.txt").write_bytes(content)
        with pytest.raises(ValueError, match=rf"^data\.directory: .*{said}"):
            list_ucf101(tmp_path, 1)
