"""Clips for the checks, drawn on the way: they are those of a draw from the whole."""

import numpy as np
import pytest

from jaxmoe.evaluation.engine.part import draw_by_class
from jaxmoe.evaluation.engine.probes import Probes


def stream(labels, size, batches):
    probes = Probes(batches)
    for start in range(0, len(labels), size):
        taken = np.arange(start, start + size)
        place = np.minimum(taken, len(labels) - 1)
        clip = place[:, None].astype(np.float32)
        valid = taken < len(labels)
        probes.add({"clip": clip, "label": labels[place], "index": place, "valid": valid})
    return probes.drawn()


@pytest.mark.parametrize("order", ["sorted", "mixed", "rare last"])
def test_clips_are_drawn_on_the_way_as_from_the_whole(order):
    labels = np.repeat([3, 0, 1], [50, 30, 15])
    if order == "mixed":
        labels = np.random.default_rng(0).permutation(labels)
    if order == "sorted":
        labels = np.sort(labels)
    batches, places = stream(labels, 8, 3)
    np.testing.assert_array_equal(places, draw_by_class(labels, 24))
    assert [len(batch["valid"]) for batch in batches] == [8, 8, 8]
    for name in ("clip", "label", "index"):
        found = np.concatenate([batch[name][batch["valid"]] for batch in batches])
        expected = {"clip": places[:, None], "label": labels[places], "index": places}[name]
        np.testing.assert_array_equal(found, expected)


def test_all_clips_are_drawn_where_there_are_no_more():
    labels = np.array([0, 0, 1, 1, 0])
    batches, places = stream(labels, 2, 9)
    assert places.tolist() == [0, 1, 2, 3, 4]
    assert batches[-1]["valid"].tolist() == [True, False]
    assert stream(labels, 2, 0)[0] == []
    maps = np.zeros((5, 3, 3), np.int32)
    assert len(stream(maps, 1, 2)[1]) == 2
