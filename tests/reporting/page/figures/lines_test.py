"""Axes of line charts: each has a number that a reader can read."""

import re

import pytest

from jaxmoe.reporting.page.figures import lines


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([30, 30], ["30"]),
        ([300, 300], ["300"]),
        ([1000, 1000], ["1000"]),
        ([25, 28], ["25", "28"]),
        ([10, 1000], ["10", "100", "1000"]),
        ([10, 60], ["10", "20", "50"]),
    ],
)
def test_a_logarithmic_axis_has_ticks_whatever_the_values(values, ticks):
    axis = lines.log_axis("gradients", values)
    assert [said for _, said in axis.ticks] == ticks
    assert all(axis.low <= value <= axis.high for value, _ in axis.ticks)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (0.125, "0.125"),
        (999, "999"),
        (999.7, "1000"),
        (1000, "1000"),
        (1234, "1234"),
        (10_000, "1e4"),
        (12_500, "1.25e4"),
    ],
)
def test_numbers_of_ticks_are_plain(value, said):
    assert lines.short(value) == said


def test_points_at_the_same_place_have_their_names_together():
    points = {"pgd": (10, 40), "ltc": (10, 40), "nes": (100, 40), "fgsm": (10, 80)}
    points |= {name: (20, 60) for name in "abcde"}
    own = [lines.Line(name, [point], "model", weight="points") for name, point in points.items()]
    across = lines.log_axis("gradients", [10, 100])
    drawn = str(lines.chart("chart", own, across, lines.percent_axis("%")))
    names = set(re.findall(r"<text[^>]*>([a-z0-9, ]+)</text>", drawn))
    assert {"pgd, ltc", "nes", "fgsm", "a, b, c and 2 more"} <= names
    assert not {"pgd", "ltc", "a"} & names
