"""What a directory or a manifest lists, and what is said of a wrong one."""

import os

import pytest

from jaxmoe.data.listing.class_folders import list_class_folders
from jaxmoe.data.listing.listing import require_directory
from jaxmoe.data.listing.manifest import read_manifest


def _touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def test_class_folders_are_training_videos_in_path_order(tmp_path):
    _touch(tmp_path, "run/b [2].avi", "run/a!.avi", "jump/é+.mp4", "jump/.hidden", ".git/x")
    listing = list_class_folders(tmp_path)
    assert listing.classes == ("jump", "run")
    assert [v.path for v in listing.files] == ["jump/é+.mp4", "run/a!.avi", "run/b [2].avi"]
    assert listing.splits == ("train",)


def test_split_folders(tmp_path):
    _touch(tmp_path, "train/run/a.avi", "val/run/b.avi", "test/run/c.avi", "train/hop/d.avi")
    found = {v.path: (v.label, v.split) for v in list_class_folders(tmp_path).files}
    assert found == {
        "train/run/a.avi": ("run", "train"),
        "val/run/b.avi": ("run", "validation"),
        "test/run/c.avi": ("run", "test"),
        "train/hop/d.avi": ("hop", "train"),
    }


def test_split_folders_in_other_spellings(tmp_path):
    _touch(tmp_path, "Training/run/a.avi", "TEST/run/c.avi", "__MACOSX/run/a.avi")
    found = {v.path: (v.label, v.split) for v in list_class_folders(tmp_path).files}
    assert found == {
        "Training/run/a.avi": ("run", "train"),
        "TEST/run/c.avi": ("run", "test"),
    }


def test_a_name_that_is_the_same_text_is_one_class(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    _touch(tmp_path, f"train/{composed}/a.avi", f"test/{decomposed}/b.avi", "train/hop/c.avi")
    listing = list_class_folders(tmp_path)
    assert listing.classes == (composed, "hop")
    assert {file.label for file in listing.files} == {composed, "hop"}


def test_a_folder_beside_those_of_splits_is_named(tmp_path):
    _touch(tmp_path, "train/run/a.avi", "test/run/c.avi", "annotations/a.txt")
    with pytest.raises(ValueError, match=r"data\.directory: .* a folder 'annotations' beside"):
        list_class_folders(tmp_path)


@pytest.mark.parametrize(
    "names", [("eval", "train"), ("test_set", "training_set"), ("test", "val"), ("Test1", "Train1")]
)
def test_splits_of_other_names_are_no_classes(tmp_path, names):
    _touch(tmp_path, f"{names[0]}/run/a.avi", f"{names[1]}/run/b.avi", f"{names[1]}/hop/b.avi")
    with pytest.raises(ValueError, match=rf"has the folders {', '.join(names)} with the same"):
        list_class_folders(tmp_path)


def test_splits_one_folder_deeper_are_no_class(tmp_path):
    _touch(tmp_path, "data/train/run/a.avi", "data/test/run/b.avi", "README")
    with pytest.raises(ValueError, match=r"data\.directory: .*one folder.* expected .*/data$"):
        list_class_folders(tmp_path)


def test_files_of_a_split_without_classes_are_not_lost_in_silence(tmp_path):
    _touch(tmp_path, "train/run/a.avi", "train/hop/b.avi")
    (tmp_path / "test").mkdir()
    assert list_class_folders(tmp_path).splits == ("train",)
    _touch(tmp_path, "test/c.avi")
    with pytest.raises(ValueError, match=r"test has files and no class folder, such as c\.avi"):
        list_class_folders(tmp_path)


def test_a_class_name_that_is_no_text_is_one_line(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    open(folder + b"/a.avi", "wb").close()
    with pytest.raises(ValueError, match=r"data\.directory: label 'caf\\udce9' .* printed"):
        list_class_folders(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    _touch(tmp_path, "train/a.avi", "car/b.avi", "train/1/c.avi", "car/1/d.avi")
    assert list_class_folders(tmp_path).classes == ("car", "train")


def test_a_test_label_without_training_videos_is_named(tmp_path):
    _touch(tmp_path, "train/run/a.avi", "test/runs/c.avi")
    with pytest.raises(ValueError, match=r"label 'runs'.*did you mean run"):
        list_class_folders(tmp_path)


@pytest.mark.parametrize("folders", [[], ["run", "jump"]])
def test_a_directory_without_files_says_what_is_expected(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match=r"^data\.directory: .*<class>/<file>"):
        list_class_folders(tmp_path)


def _manifest(tmp_path, text, encoding="utf-8"):
    file = tmp_path / "manifest.csv"
    file.write_text(text, encoding)
    return read_manifest(file, tmp_path)


def test_manifest_rows_in_any_column_order_with_quotes_and_a_byte_order_mark(tmp_path):
    listing = _manifest(
        tmp_path, 'split,path,label\r\ntest,"a, b!.avi",x\r\ntrain,./c.avi,x\r\n', "utf-8-sig"
    )
    assert [(v.path, v.label, v.split) for v in listing.files] == [
        ("a, b!.avi", "x", "test"),
        ("c.avi", "x", "train"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label,split\n", "lists no file"),
        ("path,lable,split\na,x,train\n", "no column 'label'.*did you mean lable"),
        ("path,label,split,fold,fold\na,x,train,1,2\n", "more than one column 'fold'"),
        ("path,label\na,x\n", "no column 'split'"),
        ("path,label,split,label\na,x,train,x\n", "more than one column 'label'"),
        ("path,label,split\na,x,trian\n", "line 2: unknown split 'trian'.*did you mean train"),
        ("path,label,split\na,x,train\n,x,test\n", "line 3: path is empty"),
        ("path,label,split\na,x\n", "line 2: needs 3 fields"),
        ("path,label,split\na,x,train,y\n", "line 2: needs 3 fields"),
        ("path,label,split\na,x,train\na,x,test\n", "lists a twice"),
        ("path,label,split\na,x,train\nb/../a,x,test\n", "lists b/../a twice, as a too"),
        ("path,label,split\na,x,train\nb,x ,train\n", "line 3: label 'x ' has blanks around it"),
        ("path,label,split\na,x,test\n", "no file for training"),
        ("path,label,split\na,hug,train\nb,hugs,test\n", "label 'hugs' of b.*did you mean hug"),
    ],
)
def test_a_wrong_manifest_is_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"^data\.manifest: .*" + message) as raised:
        _manifest(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_manifest_in_another_encoding_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="UTF-8"):
        _manifest(tmp_path, "path,label,split\né.avi,x,train\n", "latin-1")


@pytest.mark.parametrize("text", ["path,label,split\na\0,x,train\n", "p\0a\0t\0h\0,\0"])
def test_a_manifest_with_bytes_of_zero_is_one_line(tmp_path, text):
    with pytest.raises(ValueError, match=r"^data\.manifest: .* no text in UTF-8: it has bytes of"):
        _manifest(tmp_path, text)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.manifest: no such file: .*other\.csv"):
        read_manifest(tmp_path / "other.csv", tmp_path)


def test_class_numbers_are_in_the_order_of_numbers(tmp_path):
    _touch(tmp_path / "numbers", "11/a.avi", "6/a.avi", "1/a.avi", "06/b.avi")
    assert list_class_folders(tmp_path / "numbers").classes == ("1", "06", "6", "11")
    _touch(tmp_path / "names", "11/a.avi", "6/a.avi", "b2/a.avi")
    assert list_class_folders(tmp_path / "names").classes == ("11", "6", "b2")
    listing = _manifest(tmp_path, "path,label,split\na,10,train\nb,9,train\nc,-1,train\n")
    assert listing.classes == ("-1", "9", "10")


def test_a_class_folder_without_files_is_named(tmp_path):
    _touch(tmp_path, "train/run/a.avi", "train/jump/b.avi", "test/run/c.avi")
    (tmp_path / "test" / "jump").mkdir()  # a class may have no test file
    assert list_class_folders(tmp_path).classes == ("jump", "run")
    _touch(tmp_path, "train/hop/.DS_Store")
    with pytest.raises(ValueError, match=r"^data\.directory: the class folder .*hop holds no file"):
        list_class_folders(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_manifest_of_a_spreadsheet_has_its_separator_and_encoding(tmp_path, separator, encoding):
    rows = ["path", "label", "split"], ['"é, ;|\u2028\tb.avi"', "xyz", "train"]
    text = "\r\n".join(separator.join(row) for row in rows)
    for first in ("", f"sep={separator}\r\n"):
        (found,) = _manifest(tmp_path, first + text, encoding).files
        assert (found.path, found.label, found.split) == ("é, ;|\u2028\tb.avi", "xyz", "train")


def test_empty_rows_and_columns_of_a_spreadsheet_say_nothing(tmp_path):
    text = "path,label,split,,\na,x,train,,\n,,,,\nb,x,train\n,,,,,,\n"
    assert [file.path for file in _manifest(tmp_path, text).files] == ["a", "b"]
    with pytest.raises(ValueError, match=r"line 2: needs 3 fields"):
        _manifest(tmp_path, "path,label,split,,\na,x,train,,y\n")


def test_a_missing_column_is_named_whatever_separates_the_others(tmp_path):
    with pytest.raises(ValueError, match=r"no column 'label'.*did you mean lable"):
        _manifest(tmp_path, "path;lable;split\na;x;train\n")
    with pytest.raises(ValueError, match=r"line 3: unknown split 'x'"):
        _manifest(tmp_path, "sep=;\npath;label;split\na;x;x\n")


def test_a_split_of_a_manifest_may_be_called_as_a_folder_may(tmp_path):
    names = ("train", "val", "VALID", "Testing", "training", "test", "validation")
    rows = [f"{i}.avi,x,{name}" for i, name in enumerate(names)]
    listing = _manifest(tmp_path, "\n".join(["path,label,split", *rows]))
    assert [file.split for file in listing.files] == [
        *("train", "validation", "validation", "test", "train", "test", "validation"),
    ]


def test_a_path_with_backslashes_is_one_of_another_system(tmp_path):
    _touch(tmp_path, "run/a.avi", "run\\b.avi")
    listing = _manifest(
        tmp_path, "path,label,split\nrun\\a.avi,x,train\nrun\\b.avi,x,train\n.\\no\\c,x,train\n"
    )
    assert [file.path for file in listing.files] == ["no/c", "run/a.avi", "run\\b.avi"]
    assert [file.file.is_file() for file in listing.files] == [False, True, True]
    (tmp_path / "maps.csv").write_text("path,label_map,split\nrun\\a.avi,maps\\a.png,train\n")
    (only,) = read_manifest(tmp_path / "maps.csv", tmp_path, label_maps=True).files
    assert only.label_map == tmp_path / "maps" / "a.png"


def test_a_file_is_no_directory_of_data(tmp_path):
    _touch(tmp_path, "data.zip")
    with pytest.raises(ValueError, match=r"^data\.directory: .*data\.zip is a file; expected a"):
        require_directory(tmp_path / "data.zip")
