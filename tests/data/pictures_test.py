"""The table of pictures: made again, it is the one that the package's README has."""

import pathlib

import numpy as np

import jaxmoe.data
from tests.data import pictures as made


def test_the_table_is_the_one_of_the_readme_and_nothing_is_wrong():
    readme = pathlib.Path(jaxmoe.data.__file__).with_name("README.md").read_text("utf-8")
    table = made.table()
    assert table in readme
    assert "WRONG" not in table


def test_a_wrong_picture_is_called_wrong():
    expected, files = made.pictures()["colours"]
    assert made.verdict(files["PNG"], expected, 0) == "right"
    assert made.verdict(files["PNG"], expected ^ 8, 7) == "WRONG"
    assert made.verdict(files["PNG"], np.rot90(expected), 255) == "WRONG"
    assert made.verdict(b"no picture", expected, 255) == "refused"
