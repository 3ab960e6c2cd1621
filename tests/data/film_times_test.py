"""Times of frames: none at a constant rate, however it is rounded; those of the stamps else."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmoe.data.decoding.film_times import frame_times

MILLISECOND = Fraction(1, 1000)


@given(
    st.integers(2, 200),
    st.sampled_from([Fraction(24000, 1001), 25, Fraction(30000, 1001), 30, 60, 240]),
    st.integers(0, 100_000),
)
def test_a_rounded_constant_rate_has_no_times(frames, rate, start):
    stamps = [start + round(i * 1000 / rate) for i in range(frames)]
    assert frame_times(stamps, MILLISECOND, round(1000 / rate), jumps=False) is None


@pytest.mark.parametrize("lost", [0, 1])
def test_one_frame_lost_of_many_is_a_constant_rate_still(lost):
    stamps = [i + (lost if i > 50 else 0) for i in range(100)]
    assert frame_times(stamps, Fraction(1, 25), 1, jumps=False) is None


@pytest.mark.parametrize(
    "stamps",
    [[], [3], [None] * 4, [0, 1, None, 3], [1, 4, 6, 5, 7, 9, 8], [5, 5, 5]],
    ids=str,
)
def test_stamps_that_say_nothing_have_no_times(stamps):
    assert frame_times(stamps, MILLISECOND, 1, jumps=False) is None


def test_an_uneven_rate_has_the_times_of_its_stamps():
    times = frame_times([50, 90, 130, 400, 900], MILLISECOND, 100, jumps=False)
    assert times.tolist() == [0, 40_000, 80_000, 350_000, 850_000, 950_000]
    assert times.dtype == np.int64


def test_a_last_frame_that_stands_long_counts():
    times = frame_times([0, 1, 2, 3], Fraction(1, 10), 40, jumps=False)
    assert times.tolist() == [0, 100_000, 200_000, 300_000, 4_300_000]


def test_an_unknown_last_time_is_that_of_the_others():
    assert frame_times([0, 1, 2, 3, 20, 21], Fraction(1), 0, jumps=False)[-1] == 25_200_000


@pytest.mark.parametrize("jump", [90_000 * 3600, -90_000 * 50])
def test_a_clock_that_is_set_anew_is_no_waiting(jump):
    stamps = [3600 * i for i in range(20)]
    joined = stamps + [stamps[-1] + jump + 3600 * i for i in range(20)]
    assert frame_times(joined, Fraction(1, 90_000), 3600, jumps=True) is None
