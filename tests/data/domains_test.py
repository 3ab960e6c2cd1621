"""Domains: appearance tells the domain, the domain the meaning, and no frame the class."""

import numpy as np
import pytest

from jaxmoe.data import load_dataset
from jaxmoe.data.rendered.actions import CLASSES
from jaxmoe.data.rendered.domains import label_in, seen_in, tint

FIELDS = {"validation_clips": 10, "test_clips": 10, "resolution": 16}


def frames_of(source, frame=0):
    return np.stack([example["frames"][np.array([frame])][0] for example in source])


def domains_of(dataset, source):
    column = dataset.columns(source)["domain"]
    return np.array([int(column[record.index]) for record in source.records])


@pytest.fixture(scope="module")
def actions(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")  # rendered by this code, not found
    fields = {"frames": 8, "train_clips": 1200, "domains": 4, "cache": cache, **FIELDS}
    return load_dataset("synthetic_actions", **fields)


@pytest.mark.parametrize("classes", [4, 5, 6, 9, 10])
def test_every_domain_gives_every_motion_a_meaning_of_its_own(classes):
    everything = range(classes)
    for shown in everything:
        assert len({label_in(domain, shown, classes) for domain in everything}) == classes
    for domain in everything:
        assert len({label_in(domain, shown, classes) for shown in everything}) == classes


def test_domains_and_classes_are_balanced_and_independent(actions):
    domains = domains_of(actions, actions.train)
    table = np.zeros((4, 10), int)
    np.add.at(table, (domains, actions.train.labels), 1)
    assert (table == 30).all()
    assert actions.classes == tuple(f"meaning_{i}" for i in range(10))


def test_one_domain_is_the_set_as_it_was():
    sizes = {"frames": 4, "train_clips": 20, **FIELDS}
    plain, one = (load_dataset("synthetic_actions", **sizes, **d) for d in ({}, {"domains": 1}))
    assert plain.folder == one.folder
    assert one.classes == CLASSES
    assert one.columns(one.train) == {}
    two = load_dataset("synthetic_actions", **sizes, domains=2)
    # The clips of domain 0 show what they showed, tinted; their labels are their own.
    np.testing.assert_array_equal(
        frames_of(two.train)[:10], [seen_in(f, 0, 2, "tint") for f in frames_of(one.train)[:10]]
    )
    assert two.train.labels[:10].tolist() == one.train.labels[:10].tolist()
    assert two.train.labels[10:].tolist() == [(label + 3) % 10 for label in range(10)]


def test_the_colour_of_one_frame_tells_the_domain(actions):
    colour = frames_of(actions.train).reshape(1200, -1, 3).mean(1)
    share = colour / colour.sum(1, keepdims=True)
    expected = tint(4) / tint(4).sum(1, keepdims=True)
    nearest = np.square(share[:, None] - expected).sum(-1).argmin(1)
    assert (nearest == domains_of(actions, actions.train)).mean() > 0.95


def test_there_may_be_fewer_classes():
    sizes = {"frames": 4, "train_clips": 32, **FIELDS}
    four = load_dataset("synthetic_actions", classes=4, **sizes)
    assert four.classes == CLASSES[:4]
    assert four.train.labels.tolist() == [0, 1, 2, 3] * 8
    assert four.folder != load_dataset("synthetic_actions", **sizes).folder
    parted = load_dataset("synthetic_actions", classes=4, domains=4, **sizes)
    meanings = {tuple(parted.train.labels[i : i + 4].tolist()) for i in range(0, 16, 4)}
    assert len(meanings) == 4
    assert all(sorted(meaning) == [0, 1, 2, 3] for meaning in meanings)


def test_stripes_tell_the_domain_and_are_no_larger_than_a_small_perturbation():
    sizes = {"frames": 2, "train_clips": 400, **FIELDS}
    plain = load_dataset("synthetic_actions", domains=1, **sizes)
    striped = load_dataset("synthetic_actions", domains=4, domain_cue="stripes", **sizes)
    frames, before = (frames_of(d.train).astype(float) for d in (striped, plain))
    assert np.abs(frames - before).max() <= 4
    # Fourier coefficients at a period of four pixels, in four directions.
    down, across = np.mgrid[:16, :16]
    waves = [
        np.exp(0.5j * np.pi * (np.cos(angle) * across + np.sin(angle) * down))
        for angle in np.pi * np.arange(4) / 4
    ]
    strength = np.abs(np.einsum("nhw,dhw->nd", frames.mean(-1), np.array(waves)))
    found = (strength.argmax(1) == domains_of(striped, striped.train)).mean()
    assert found > 0.6  # a matched filter sees them in most clips, where chance is 0.25
    tinted = load_dataset("synthetic_actions", domains=4, **sizes)
    assert striped.folder != tinted.folder, "the cue is part of what is prepared"
    assert striped.train.labels.tolist() != plain.train.labels.tolist()


@pytest.mark.parametrize("frame", [0, 7])
def test_one_frame_does_not_tell_the_class_within_a_domain(actions, frame):
    images = frames_of(actions.train, frame).reshape(1200, -1) / 255 - 0.3
    # 400 clips: chance is 0.1, four standard deviations above it 0.16.
    assert within_domains(actions, images) < 0.16
    # It would see a class that made its frames a little brighter than the one before.
    assert within_domains(actions, images + 0.05 * actions.train.labels[:, None]) > 0.3


def within_domains(actions, images):
    """Accuracy of ridge regression within each domain, 200 clips to learn from, 100 to judge."""
    features = np.concatenate([images, np.abs(images), np.square(images)], axis=1)
    domains, labels = domains_of(actions, actions.train), actions.train.labels
    right = []
    for domain in range(4):
        mine = np.flatnonzero(domains == domain)
        train, test = mine[:200], mine[200:]
        targets = np.eye(10)[labels[train]] - 0.1
        gram = features[train] @ features[train].T + 20 * np.eye(200)
        weights = features[train].T @ np.linalg.solve(gram, targets)
        right.append(np.argmax(features[test] @ weights, axis=1) == labels[test])
    return np.mean(right)


def test_a_domain_can_be_trained_on_alone(actions):
    part = load_dataset(
        "synthetic_actions", frames=8, train_clips=1200, domains=4, subset="domain=2", **FIELDS
    )
    assert len(part.train) == 300
    assert set(domains_of(part, part.train)) == {2}
    assert len(part.test) == 10


def test_shapes_have_domains_too():
    shapes = load_dataset("synthetic_shapes", train_clips=40, domains=2, **FIELDS)
    assert np.bincount(domains_of(shapes, shapes.train)).tolist() == [20, 20]
    assert shapes.train[10]["label"] == 3


def test_the_shapes_of_a_scene_have_other_labels_in_each_domain():
    plain, three = (
        load_dataset("synthetic_scenes", train_clips=24, domains=domains, **FIELDS)
        for domains in (1, 3)
    )
    assert plain.classes[:2] == ("ground", "disc")
    assert three.classes[:2] == ("ground", "meaning_0")
    domains = domains_of(three, three.train)
    assert np.bincount(domains).tolist() == [8, 8, 8]
    places = list(three.columns(three.train)["place"].values())
    assert {(place, domain) for place, domain in zip(places, domains, strict=True)} == {
        (place, domain) for place in ("round", "straight") for domain in range(3)
    }
    for i, domain in enumerate(domains):
        shown, meant = plain.train[i]["label"], three.train[i]["label"]
        # 0 is the ground in every domain; ten shapes, each domain three further on.
        expected = np.where(shown == 0, 0, 1 + (shown - 1 + 3 * domain) % 10)
        np.testing.assert_array_equal(meant, expected)
        tinted = np.rint(plain.train[i]["frames"][[0]][0] * tint(3)[domain])
        np.testing.assert_array_equal(three.train[i]["frames"][[0]][0], tinted)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "synthetic_actions", "domains": 11}, r"data\.domains: 11; expected 1 to 10"),
        ({"name": "synthetic_shapes", "domains": 0}, r"data\.domains: 0 .* at least 1"),
        (
            {"name": "synthetic_shapes", "domains": 5, "classes": 4},
            r"data\.domains: 5; expected 1 to 4, the number of classes",
        ),
        ({"name": "synthetic_actions", "classes": 11}, r"data\.classes: 11; expected 2 to 10"),
        (
            {"name": "synthetic_scenes", "classes": 4},
            r"data\.classes: synthetic_scenes has no such field; synthetic_actions",
        ),
        ({"name": "synthetic_scenes", "domains": 11}, r"data\.domains: 11; expected 1 to 10"),
        (
            {"name": "ucf101"},
            r"data\.train_clips: ucf101 has no such field; synthetic_actions",
        ),
        (
            {"name": "synthetic_shapes", "domain_cue": "stripes"},
            r"data\.domain_cue: stripes; expected data\.domains above 1",
        ),
        (
            {"name": "synthetic_shapes", "domains": 2, "domain_cue": "hue"},
            r"data\.domain_cue: 'hue' is not accepted; expected one of tint, stripes",
        ),
    ],
)
def test_other_numbers_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(**{"train_clips": 10, **FIELDS, **fields})
