"""What a table has to say of the labels that it was made of."""

import numpy as np

from jaxmoe.evaluation.engine.rows import count_labels, notes_on_labels


def notes(label, classes):
    return notes_on_labels(count_labels(np.asarray(label), classes))


def test_classes_that_never_occur_are_named():
    assert notes([2, 0, 1, 1] * 3, 3) == []
    voids = [[0, -1], [2, -1]] * 5
    assert notes(voids, 3) == ["labels: 1 of 3 classes never occur (1)"]
    [line] = notes([[0, 255]] * 128, 256)  # masks of 0 and 255
    assert line == "labels: 254 of 256 classes never occur (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)"
    [line] = notes([1, 2, 3] * 4, 4)
    assert line.endswith("never occur (0); classes are numbered from 0")


def test_a_handful_of_labels_need_not_have_every_class():
    assert notes([0] * 9, 2) == []
    assert notes([0] * 10, 2) == ["labels: 1 of 2 classes never occur (1)"]
    assert notes([0] * 99, 100) == []
