"""Folders as people have them: linked, looped, and full of what programs leave behind."""

import os

import pytest

from jaxmoe.data.listing.class_folders import list_class_folders
from jaxmoe.data.listing.label_folders import list_camvid, list_pairs
from jaxmoe.data.listing.official_splits import list_hmdb51, list_ucf101
from jaxmoe.data.listing.walking import files_below

LEFT_BEHIND = (
    *(".DS_Store", "._a.jpg", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "Icon\r"),
    *("a.jpg~", "a.jpg:Zone.Identifier", ".nomedia", ".directory", "ehthumbs.db", "Picasa.ini"),
)
LEFT_BEHIND_FOLDERS = (
    *("__MACOSX", "@eaDir", ".ipynb_checkpoints", "lost+found", "$RECYCLE.BIN", ".thumbnails"),
    *("System Volume Information", "#recycle", "@Recycle", ".Trash-1000", ".git", "RECYCLER"),
    *(".AppleDouble", "__pycache__", ".@__thumb", "#snapshot"),
)


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def below(folder):
    return [file.relative_to(folder).as_posix() for file in files_below(folder)]


def link(place, target):
    place.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, place)


def test_what_programs_leave_behind_is_no_class_and_no_clip(tmp_path):
    root = tmp_path / "data"
    touch(root, "train/wave/a.jpg", "train/hop/deep/b.jpg", "test/wave/c.jpg")
    for folder in ("", "train/", "train/wave/", "train/hop/deep/", "test/"):
        touch(root, *(f"{folder}{name}/x.jpg" for name in LEFT_BEHIND_FOLDERS))
        touch(root, *(f"{folder}{name}" for name in LEFT_BEHIND))
    listing = list_class_folders(root)
    assert listing.classes == ("hop", "wave")
    assert [file.path for file in listing.files] == [
        *("test/wave/c.jpg", "train/hop/deep/b.jpg", "train/wave/a.jpg"),
    ]


def test_names_that_only_look_left_behind_are_classes(tmp_path):
    names = ("recycler", "trash", "found", "thumbs", "@home", "~a", "desktop")
    touch(tmp_path, *(f"{name}/a.jpg" for name in names))
    assert set(list_class_folders(tmp_path).classes) == set(names)


def test_links_are_followed_where_a_folder_or_a_file_is_linked(tmp_path):
    touch(tmp_path / "store", "wave/a.avi", "wave/deep/b.avi", "c.avi")
    root = tmp_path / "root"
    touch(root, "hop/d.avi", "jump/own.avi")
    link(root / "wave", tmp_path / "store" / "wave")
    link(root / "hop" / "c.avi", tmp_path / "store" / "c.avi")
    link(root / "jump" / "part", root / ".." / "more")
    touch(tmp_path / "more", "e.avi", "deeper/f.avi")
    assert {file.path: file.label for file in list_class_folders(root).files} == {
        **dict.fromkeys(["wave/a.avi", "wave/deep/b.avi"], "wave"),
        **dict.fromkeys(["hop/c.avi", "hop/d.avi"], "hop"),
        **dict.fromkeys(["jump/own.avi", "jump/part/e.avi", "jump/part/deeper/f.avi"], "jump"),
    }


def test_loops_end_and_each_file_is_listed_once(tmp_path):
    root = tmp_path / "root"
    touch(root, "wave/a.avi", "wave/sub/b.avi", "hop/c.avi")
    link(root / "wave" / "again", root / "wave")  # to where it lies
    link(root / "wave" / "sub" / "up", root)  # to what it lies in
    link(root / "itself", root)
    link(root / "wave" / "alias", root / "wave" / "sub")  # comes before `sub`
    link(root / "wave" / "0.avi", root / "wave" / "a.avi")
    link(root / "wave" / "one", tmp_path / "one")
    link(tmp_path / "one" / "two", tmp_path / "two")
    link(tmp_path / "two" / "one", tmp_path / "one")  # each leads to the other
    touch(tmp_path, "one/d.avi", "two/e.avi")
    paths = [file.path for file in list_class_folders(root).files]
    assert paths == [
        *("hop/c.avi", "wave/a.avi", "wave/one/d.avi", "wave/one/two/e.avi", "wave/sub/b.avi"),
    ]


def test_one_file_under_two_classes_is_refused(tmp_path):
    touch(tmp_path, "wave/a.avi", "hop/b.avi")
    link(tmp_path / "hop" / "other", tmp_path / "wave")
    with pytest.raises(ValueError, match=r"wave/a\.avi twice, as hop/other/a\.avi too"):
        list_class_folders(tmp_path)


@pytest.mark.parametrize("place", ["punch", "train/punch"])
def test_a_link_to_nothing_where_a_class_may_be_is_refused(tmp_path, place):
    root = tmp_path / "data"
    classes = ("train/wave", "train/hop", "test/wave") if "/" in place else ("wave", "hop")
    touch(root, *(f"{name}/a.jpg" for name in classes))
    link(root / place, tmp_path / "gone")
    with pytest.raises(ValueError, match=r"data\.directory: .*punch is a link to .*gone, which is"):
        list_class_folders(root)


def test_a_link_to_nothing_is_not_lost_in_silence(tmp_path):
    touch(tmp_path, "wave/a.avi")
    link(tmp_path / "wave" / "gone.avi", tmp_path / "nowhere.avi")
    link(tmp_path / "wave" / "self.avi", tmp_path / "wave" / "self.avi")
    os.mkfifo(tmp_path / "wave" / "pipe")
    assert below(tmp_path / "wave") == ["a.avi", "gone.avi", "self.avi"]


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    touch(tmp_path, "wave/a.avi", "wave/closed/b.avi")
    listed = os.scandir

    def scandir(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"^data\.directory: .*closed cannot be read: Permission"):
        list_class_folders(tmp_path)


def test_ucf101_and_hmdb51_behind_links(tmp_path):
    touch(tmp_path / "store", "Archery/v_Archery_g01_c01.avi", "Archery/._v_Archery_g01_c01.avi")
    root = tmp_path / "ucf"
    link(root / "UCF-101", tmp_path / "store")
    lists = {"classInd": "1 Archery", "trainlist01": "Archery/v_Archery_g01_c01.avi 1"}
    touch(root, *(f"ucfTrainTestlist/{name}.txt" for name in ("testlist01", *lists)))
    for name, text in {**lists, "testlist01": ""}.items():
        (root / "ucfTrainTestlist" / f"{name}.txt").write_text(text)
    (found,) = list_ucf101(root, 1).files
    assert found.file.is_file()
    root = tmp_path / "hmdb"
    link(root / "wave", tmp_path / "films")
    touch(tmp_path / "films", "a.avi")
    touch(root, "testTrainMulti_7030_splits/._wave_test_split1.txt")
    (root / "testTrainMulti_7030_splits" / "wave_test_split1.txt").write_text("a.avi 1 ")
    listing = list_hmdb51(root, 1)
    assert listing.classes == ("wave",)
    assert listing.files[0].file.is_file()


def test_label_maps_behind_links(tmp_path):
    touch(tmp_path / "store", "a.png", "@eaDir/a.png", "Thumbs.db")
    touch(tmp_path / "maps", "a.png")
    link(tmp_path / "camvid" / "train", tmp_path / "store")
    link(tmp_path / "camvid" / "trainannot", tmp_path / "maps")
    (only,) = list_camvid(tmp_path / "camvid").listing.files
    assert (only.path, only.label_map.is_file()) == ("train/a.png", True)
    (tmp_path / "camvid" / "classes.txt").write_text("a\n")
    (only,) = list_pairs(tmp_path / "camvid", None).listing.files
    assert (only.path, only.label_map.is_file()) == ("train/a.png", True)
