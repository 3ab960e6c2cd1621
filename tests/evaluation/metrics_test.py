"""Metrics against counts by hand and closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.evaluation import accuracy, load_of_choices, routing_entropy, routing_iou
from jaxmoe.evaluation.measures.metrics import (
    choice_flips,
    confusion,
    iou,
    mean_iou,
    mean_iou_interval,
)


def test_accuracy_of_a_dense_task_is_the_share_of_its_pixels():
    logits = jnp.eye(3)[jnp.array([[0, 1], [2, 2]])]
    np.testing.assert_array_equal(accuracy(logits, jnp.array([[0, 1], [2, 0]])), [1.0, 0.5])


def test_entropy_of_a_uniform_router_is_log_m_and_of_a_sure_one_0():
    logits = jnp.array([[0.0, 0, 0, 0], [0, -jnp.inf, -jnp.inf, -jnp.inf], [1e6, 0, 0, 0]])
    np.testing.assert_allclose(routing_entropy(logits), [np.log(4), 0, 0], atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.permutations(range(5)), st.permutations(range(5)), st.integers(min_value=1, max_value=5))
def test_iou_is_that_of_the_sets(first, second, top_k):
    a, b = set(np.argsort(first)[-top_k:]), set(np.argsort(second)[-top_k:])
    logits = [jnp.array([order], jnp.float32) for order in (first, second)]
    assert routing_iou(*logits, top_k)[0] == pytest.approx(len(a & b) / len(a | b))
    assert bool(choice_flips(*logits)[0]) == (np.argmax(first) != np.argmax(second))


def test_load_counts_experts_that_nobody_chose():
    np.testing.assert_allclose(load_of_choices(np.array([1, 1, 3]), 4), [0, 2 / 3, 0, 1 / 3])


def test_confusion_counts_every_labelled_position_once():
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(3, 4, 5, 6)).astype(np.float32)
    labels = draw.integers(-1, 6, (3, 4, 5)).astype(np.int32)
    found = np.asarray(confusion(jnp.asarray(logits), jnp.asarray(labels)))
    slow = np.zeros((3, 6, 6), int)
    for b, i, j in np.ndindex(3, 4, 5):
        if labels[b, i, j] >= 0:
            slow[b, labels[b, i, j], logits[b, i, j].argmax()] += 1
    np.testing.assert_array_equal(found, slow)
    hits = np.trace(slow, axis1=1, axis2=2) / slow.sum((1, 2))
    np.testing.assert_allclose(accuracy(jnp.asarray(logits), jnp.asarray(labels)), hits, rtol=1e-6)


def test_mean_iou_by_hand():
    # Class 0: 3 right, 1 missed, 2 too many; class 1: 2 of 5; class 2 is nowhere.
    assert mean_iou(np.array([[3, 1, 0], [2, 2, 0], [0, 0, 0]])) == (3 / 6 + 2 / 5) / 2
    found = iou(np.array([[3, 1, 0], [2, 2, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(found, [3 / 6, 2 / 5, np.nan])
    assert mean_iou(np.eye(4)) == 1.0
    assert np.isnan(mean_iou(np.zeros((2, 2))))


def test_the_interval_of_mean_iou_is_of_images_weighted_anew():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 9, (12, 4, 4)) * draw.integers(0, 2, (12, 4, 1))
    images[:, :, 3] = images[:, 3] = 0  # a class that is nowhere
    images[5] = 0  # all void: it says nothing
    there = images[images.any(axis=(1, 2))]
    weights = np.random.default_rng(3).dirichlet([1.0] * len(there), 50)
    found = [mean_iou(np.einsum("n,nkl", row, there)) for row in weights]
    low, high = mean_iou_interval(images, draws=50, seed=3)
    np.testing.assert_allclose([low, high], np.percentile(found, [2.5, 97.5]))
    assert low < mean_iou(images.sum(0)) < high


def test_the_interval_of_mean_iou_holds_it_where_bad_classes_are_rare():
    images = np.zeros((20, 11, 11), int)
    images[:, 0, 0] = 100
    images[range(10), range(1, 11), 0] = 1  # ten classes of one pixel each, all missed
    low, high = mean_iou_interval(images)
    assert low <= mean_iou(images.sum(0)) <= high


def test_one_image_or_equal_ones_have_no_spread():
    one = np.array([[[3, 1], [2, 2]]])
    assert mean_iou_interval(one) is None
    assert mean_iou_interval(np.zeros((5, 2, 2), int)) is None
    low, high = mean_iou_interval(np.repeat(one, 4, axis=0))
    assert low == pytest.approx(high) == pytest.approx(mean_iou(one[0]))
