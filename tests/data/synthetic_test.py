"""Synthetic clips: deterministic, and classes that only motion tells apart."""

import numpy as np
import pytest

from jaxmoe.data import load_dataset
from jaxmoe.data.rendered.actions import CLASSES, render_actions


@pytest.fixture(scope="module")
def clips():
    """Training and test clips with labels: 2,000 and 1,000 of 16 frames at 32 pixels."""
    labels = np.arange(3000) % len(CLASSES)
    rendered = render_actions(labels, [(0, 7, i) for i in range(3000)], 16, 32)
    return rendered[:2000], labels[:2000], rendered[2000:], labels[2000:]


def test_a_clip_depends_on_its_own_key_alone():
    labels = np.arange(40) % 10
    keys = [(3, 0, i) for i in range(40)]
    together = render_actions(labels, keys, 8, 24)
    alone = render_actions(labels[37:38], keys[37:38], 8, 24)
    np.testing.assert_array_equal(together[37], alone[0])
    assert together.shape == (40, 8, 24, 24, 3)
    assert together.dtype == np.uint8
    other = render_actions(labels[37:38], [(4, 0, 37)], 8, 24)
    assert (other[0] != alone[0]).mean() > 0.5


def test_the_dataset_has_the_sizes_asked_for_and_balanced_classes():
    sizes = {"train_clips": 40, "validation_clips": 20, "test_clips": 30}
    small = load_dataset("synthetic_actions", frames=6, resolution=16, **sizes)
    assert small.counts == {"train": 40, "validation": 20, "test": 30}
    assert small.classes == CLASSES
    assert np.bincount(small.train.labels).tolist() == [4] * 10
    more = load_dataset(
        "synthetic_actions", frames=6, resolution=16, **{**sizes, "train_clips": 50}
    )
    every = np.arange(6)
    first, second = small.test[3]["frames"][every], more.test[3]["frames"][every]
    assert first.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(first, second)
    assert (first != small.train[3]["frames"][every]).mean() > 0.5
    other = load_dataset("synthetic_actions", frames=6, resolution=16, seed=1, **sizes)
    assert (first != other.test[3]["frames"][every]).mean() > 0.5


def _random_features(images, seed=0, count=500):
    """Rectified random projections, standardised: a fixed hidden layer."""
    flat = images.reshape(len(images), -1).astype(np.float32) / 255 - 0.4
    weights = np.random.default_rng(seed).normal(size=(flat.shape[1], count)).astype(np.float32)
    return np.maximum(flat @ weights, 0) / np.sqrt(flat.shape[1])


def _ridge_accuracy(train, labels, test, test_labels, penalty=1.0):
    mean, spread = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / spread, (test - mean) / spread
    targets = np.eye(len(CLASSES))[labels] - 1 / len(CLASSES)
    gram = train.T @ train + penalty * len(train) * 0.1 * np.eye(train.shape[1])
    return (np.argmax(test @ np.linalg.solve(gram, train.T @ targets), 1) == test_labels).mean()


@pytest.mark.parametrize("frame", [0, 7, 15])
@pytest.mark.parametrize("shared", ["pixels and random features", "statistics"])
def test_one_frame_does_not_tell_the_class(clips, frame, shared):
    train, labels, test, test_labels = clips

    def features(images):
        if shared == "statistics":
            return _statistics(images)
        small = images.reshape(len(images), 16, 2, 16, 2, 3).mean((2, 4))
        return np.concatenate([small.reshape(len(small), -1), _random_features(small)], 1)

    accuracy = _ridge_accuracy(
        features(train[:, frame]), labels, features(test[:, frame]), test_labels
    )
    # Chance is 0.1, and 0.14 is four standard deviations above it for 1,000 clips.
    assert accuracy < 0.14


def _statistics(images):
    """Size, place, shape and brightness of the blob, which is brighter than the ground."""
    bright = images.max(-1).astype(np.float32)
    mask = (bright > 120).astype(np.float32)
    area = mask.mean((1, 2))
    turns = 2 * np.pi * np.arange(32) / 32
    waves = np.stack([f(k * turns) for k in (1, 2, 3) for f in (np.cos, np.sin)])
    rows, columns = mask.mean(2) @ waves.T, mask.mean(1) @ waves.T
    edges = [np.abs(np.diff(bright, axis=a)).mean((1, 2)) for a in (1, 2)]
    base = np.column_stack([area, bright.mean((1, 2)), bright.std((1, 2)), *edges, rows, columns])
    return np.concatenate([base, base**2, np.abs(base)], 1)


def test_motion_tells_the_class(clips):
    train, labels, test, test_labels = clips

    def features(movies):
        """How the blob's place, area and texture change from frame to frame."""
        bright = (movies.max(-1) > 120).astype(np.float32)
        turns = np.exp(2j * np.pi * np.arange(32) / 32)
        steps = []
        for axis in (2, 3):
            place = bright.mean(axis) @ turns  # its angle is the place on the torus
            steps.append(np.angle(place[:, 1:] * place[:, :-1].conj()))
        area = np.log(bright.mean((2, 3)) + 1e-3)
        steps.append(np.clip(np.diff(area, axis=1), -0.3, 0.3))
        moments = [f(step) for step in steps for f in (_mean, _size, _median)]
        return np.column_stack(moments)

    accuracy = _ridge_accuracy(features(train), labels, features(test), test_labels, 1e-3)
    assert accuracy > 0.5


def _mean(steps):
    return steps.mean(1)


def _median(steps):
    return np.median(steps, 1)


def _size(steps):
    return np.abs(steps).mean(1)


def _centre(movie):
    bright = (movie.max(-1) > 120).astype(np.float64)
    turns = np.exp(2j * np.pi * np.arange(movie.shape[1]) / movie.shape[1])
    return bright.mean((1, 2)), bright.mean(1) @ turns, bright.mean(2) @ turns


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("moves_left", 1, -1), ("moves_right", 1, 1), ("moves_up", 2, -1), ("moves_down", 2, 1)],
)
def test_a_class_does_what_its_name_says(name, axis, sign):
    movies = render_actions(np.full(20, CLASSES.index(name)), [(1, i) for i in range(20)], 16, 32)
    steps = []
    for movie in movies:
        place = _centre(movie)[axis]
        steps.append(np.median(np.angle(place[1:] / place[:-1])) * 32 / (2 * np.pi))
    assert (np.array(steps) * sign > 1).all()


def test_growing_and_shrinking():
    for name, sign in (("grows", 1), ("shrinks", -1)):
        movies = render_actions(
            np.full(20, CLASSES.index(name)), [(2, i) for i in range(20)], 16, 32
        )
        for movie in movies:
            assert np.median(np.diff(_centre(movie)[0])) * sign > 0
