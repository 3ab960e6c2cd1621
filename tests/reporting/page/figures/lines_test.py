"""Axes of line charts: each has a number that a reader can read."""

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
