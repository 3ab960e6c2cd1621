"""What a run's folder says of itself, and what is said where that is damaged."""

import json

import pytest

from jaxmoe.runs.folder import check_same_splits, recorded_classes


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"classes": 3}, "classes is 3; expected a list"),
        ({"splits": []}, r"splits is \[\]; expected a dict"),
        ({"processes": None}, "processes is None; expected a list"),
    ],
)
def test_a_description_of_another_kind_is_named(tmp_path, description, words):
    (tmp_path / "run.json").write_text(json.dumps(description))
    for read in (recorded_classes, lambda run: check_same_splits(run, None, "data", "")):
        with pytest.raises(ValueError, match=f"^{tmp_path}: its run.json is damaged: {words}$"):
            read(tmp_path)


def test_a_run_without_a_description_says_nothing(tmp_path):
    assert recorded_classes(tmp_path) == ()
    check_same_splits(tmp_path, None, "data", "")
