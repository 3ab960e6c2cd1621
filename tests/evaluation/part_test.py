"""Parts of a split: each class has its share, every example the same chance, one draw for all."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.evaluation.engine.part import describe_part, draw_by_class, take_part_of


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 9))
def test_each_class_has_its_share_rounded(labels, count, seed):
    labels = np.array(labels)
    places = draw_by_class(labels, count, seed)
    count = min(count, len(labels))
    assert len(set(places.tolist())) == count
    assert np.all(np.diff(places) > 0)
    for label in np.unique(labels):
        share = count * np.mean(labels == label)
        assert np.floor(share - 1e-9) <= np.sum(labels[places] == label) <= np.ceil(share + 1e-9)
    np.testing.assert_array_equal(places, draw_by_class(labels, count, seed))


def test_every_example_is_as_likely_as_any_other():
    labels = np.repeat([0, 1, 2], [40, 7, 13])
    counts = np.zeros(60)
    for seed in range(3000):
        counts[draw_by_class(labels, 20, seed)] += 1
    # Binomial: 3000 draws at 1/3 have a deviation of 26.
    assert np.all(np.abs(counts - 1000) < 5 * 26)


def test_a_part_of_a_sorted_split_is_as_good_as_the_whole():
    """Right on one class alone: the first twenty said 100 %."""
    labels = np.repeat([0, 1], 20)
    right = labels == 0
    assert right[:20].mean() == 1
    assert right[draw_by_class(labels, 20)].mean() == 0.5


def test_images_whose_pixels_have_labels_are_spread_evenly():
    source = types.SimpleNamespace(
        dense=True, labels=np.full(9, -1), records=list("abcdefghi"), take="".join
    )
    assert take_part_of(source, 3) == "aei"
    assert take_part_of(source, 20) == "abcdefghi"
    source.records = list(range(233))
    source.take = lambda records: records
    some = take_part_of(source, 59)
    assert (some[0], some[-1], len(set(some))) == (0, 232, 59)
    assert describe_part(3, 9, dense=True) == "3 of 9, evenly spread"


def test_a_part_is_named():
    assert describe_part(20, 40) == "20 of 40, drawn by class, seed 0"
    assert describe_part(60, 40) == "all 40"
    with pytest.raises(ValueError, match="examples: 0 is not at least 1"):
        draw_by_class(np.zeros(3, int), 0)
