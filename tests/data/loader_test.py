"""The loader: determinism, resuming anywhere, disjoint shares, padding, shapes."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.data import Augmentation, load_dataset, make_loader
from jaxmoe.data.loading.source import ClipSource

TRAIN = 23
TEST = 11


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(
        "synthetic_actions",
        frames=8,
        resolution=16,
        train_clips=TRAIN,
        validation_clips=5,
        test_clips=TEST,
        cache=tmp_path_factory.mktemp("cache"),
    )


def _training(dataset, flip=False, **kwargs):
    defaults = {"batch_size": 4, "frames": 4, "height": 12, "seed": 0}
    return make_loader(
        dataset.train,
        augmentation=Augmentation(flip=flip),
        shuffle=True,
        repeat=True,
        **{**defaults, **kwargs},
    )


def _evaluation(dataset, **kwargs):
    defaults = {"batch_size": 4, "frames": 4, "height": 12, "seed": 0}
    return make_loader(
        dataset.test, augmentation=None, shuffle=False, repeat=False, **{**defaults, **kwargs}
    )


def _take(loader, count):
    iterator = iter(loader)
    batches = [next(iterator) for _ in range(count)]
    iterator.close()
    return batches


def _assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_batch_has_the_promised_arrays(dataset):
    (batch,) = _take(_training(dataset), 1)
    assert {name: (array.shape, str(array.dtype)) for name, array in batch.items()} == {
        "clip": ((4, 4, 12, 12, 3), "uint8"),
        "label": ((4,), "int32"),
        "index": ((4,), "int32"),
        "valid": ((4,), "bool"),
    }
    records = {record.index: record for record in dataset.train.records}
    assert [records[i].label for i in batch["index"]] == batch["label"].tolist()


def test_the_seed_decides_everything(dataset):
    first = _take(_training(dataset), 12)
    _assert_same(first, _take(_training(dataset), 12))
    other = _take(_training(dataset, seed=1), 12)
    assert any((a["index"] != b["index"]).any() for a, b in zip(first, other, strict=True))


def test_caching_frames_changes_no_batch(dataset):
    cached = _take(_training(dataset, cache_decoded=True), 8)
    fresh = pickle.loads(pickle.dumps(dataset.train))
    loader = make_loader(
        fresh,
        batch_size=4,
        frames=4,
        height=12,
        seed=0,
        augmentation=Augmentation(),
        shuffle=True,
        repeat=True,
        cache_decoded=False,
    )
    assert fresh._decoded is None
    _assert_same(cached, _take(loader, 8))


def test_an_epoch_has_no_clip_twice_and_the_next_is_another(dataset):
    loader = _training(dataset)
    assert loader.batches_per_epoch == TRAIN // 4
    batches = _take(loader, 3 * loader.batches_per_epoch)
    epochs = np.concatenate([b["index"] for b in batches]).reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch.tolist())) == len(epoch) == 20
    assert (epochs[0] != epochs[1]).any()
    assert set(epochs.ravel().tolist()) == set(range(TRAIN))  # what is left out changes


def test_a_clip_is_augmented_anew_in_each_epoch(dataset):
    loader = _training(dataset, height=8)
    seen = {}
    for batch in _take(loader, 4 * loader.batches_per_epoch):
        for index, clip in zip(batch["index"], batch["clip"], strict=True):
            seen.setdefault(int(index), set()).add(clip.tobytes())
    assert sum(map(len, seen.values())) > 0.9 * 4 * 20


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 13), st.integers(0, 9))
def test_a_saved_position_resumes_at_the_next_batch(dataset, before, beyond):
    iterator = iter(_training(dataset))
    for _ in range(before):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = [next(iterator) for _ in range(3)]
    iterator.close()
    resumed = iter(_training(dataset))
    for _ in range(beyond):  # wherever it is when it is told
        next(resumed)
    resumed.set_state(state)
    _assert_same(expected, [next(resumed) for _ in range(3)])
    resumed.close()


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 4), st.integers(1, 5))
def test_processes_share_no_clip_of_an_epoch(dataset, processes, batch_size):
    loaders = [
        _training(dataset, batch_size=batch_size, process_index=p, process_count=processes)
        for p in range(processes)
    ]
    (length,) = {loader.batches_per_epoch for loader in loaders}
    assert length == TRAIN // (batch_size * processes)
    seen = [np.array([b["index"] for b in _take(loader, 2 * length)]) for loader in loaders]
    for epoch in (slice(0, length), slice(length, 2 * length)):
        indices = np.concatenate([s[epoch].ravel() for s in seen])
        assert len(set(indices.tolist())) == len(indices) == length * batch_size * processes


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 4), st.integers(1, 13))
def test_evaluation_sees_every_clip_once_and_pads(dataset, processes, batch_size):
    batches = [
        list(_evaluation(dataset, batch_size=batch_size, process_index=p, process_count=processes))
        for p in range(processes)
    ]
    assert len({len(b) for b in batches}) == 1
    flat = [batch for share in batches for batch in share]
    assert {b["clip"].shape for b in flat} == {(batch_size, 4, 12, 12, 3)}
    valid = np.concatenate([b["index"][b["valid"]] for b in flat])
    assert sorted(valid.tolist()) == [r.index for r in dataset.test.records]
    # Padding is a real clip, so that no arithmetic on it breaks down.
    padding = [i for b in flat for i in b["index"][~b["valid"]]]
    assert set(padding) <= {dataset.test.records[-1].index}
    if processes == 1:
        assert valid.tolist() == sorted(valid.tolist())


def test_batches_are_read_by_their_positions_and_no_others(dataset, monkeypatch):
    loader = _evaluation(dataset)
    whole = _take(loader, 3)
    read = []
    monkeypatch.setattr(
        "jaxmoe.data.loading.source.ClipSource._read",
        lambda self, i, frames, read_one=ClipSource._read: (
            read.append(i) or read_one(self, i, frames)
        ),
    )
    _assert_same([*loader.at([0, 2])], [whole[0], whole[2]])
    assert set(read) == {0, 1, 2, 3, 8, 9, 10}


def test_evaluation_is_the_centre_of_all_frames(dataset):
    batch = next(iter(_evaluation(dataset)))
    whole = dataset.test[2]["frames"][np.array([1, 3, 5, 7])]
    np.testing.assert_array_equal(batch["clip"][2], whole[:, 2:14, 2:14])
    strided = next(iter(_evaluation(dataset, stride=1)))
    window = dataset.test[2]["frames"][np.array([2, 3, 4, 5])]
    np.testing.assert_array_equal(strided["clip"][2], window[:, 2:14, 2:14])


def test_flips_happen_only_when_asked_for(dataset):
    whole = {"frames": 8, "height": 16, "batch_size": 20}
    stored = {
        r.index: dataset.train[i]["frames"][np.arange(8)]
        for i, r in enumerate(dataset.train.records)
    }

    def flipped(**kwargs):
        (batch,) = _take(_training(dataset, **whole, **kwargs), 1)
        flags = []
        for index, clip in zip(batch["index"], batch["clip"], strict=True):
            same = (clip == stored[int(index)]).all()
            assert same or (clip == stored[int(index)][:, :, ::-1]).all()
            flags.append(not same)
        return sum(flags)

    assert flipped() == 0
    assert 3 <= flipped(flip=True) <= 17


def test_worker_processes_make_the_same_batches(dataset):
    _assert_same(_take(_training(dataset), 6), _take(_training(dataset, workers=1), 6))


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"data\.batch_size: 24 is more than the 23 examples.*at most 23", {"batch_size": 24}),
        (r"data\.batch_size: 8 for 3 processes.*at most 7", {"batch_size": 8, "process_count": 3}),
        (r"data\.height: 17 is more than the 16 pixels", {"height": 17}),
        (r"data\.batch_size: 0", {"batch_size": 0}),
        (r"data\.frames: 0", {"frames": 0}),
        (r"data\.stride: 0", {"stride": 0}),
        (r"data\.stride: 'unifrom'", {"stride": "unifrom"}),
        (r"data\.seed: 4294967296", {"seed": 2**32}),
        (r"data\.workers: -1", {"workers": -1}),
        (r"process_index: 1", {"process_index": 1}),
    ],
)
def test_a_wrong_argument_is_one_line(dataset, message, arguments):
    with pytest.raises(ValueError, match="^" + message) as raised:
        _training(dataset, **arguments)
    assert "\n" not in str(raised.value)


def test_clips_of_different_shapes_make_one_batch(real_data, tmp_path):
    source = real_data / "ut_interaction"
    rows = (source / "manifest.csv").read_text().splitlines()[1:]
    chosen = [row for row in rows if "seq05" in row or "seq11" in row or "seq13" in row]
    (tmp_path / "few.csv").write_text("\n".join(["path,label,split", *chosen]))
    dataset = load_dataset(
        "video_folder", directory=source, manifest=tmp_path / "few.csv", resolution=32
    )
    assert len({(r.height, r.width) for r in dataset.train.records}) > 1
    loader = make_loader(
        dataset.train,
        batch_size=4,
        frames=16,
        height=28,
        seed=0,
        augmentation=Augmentation(flip=True),
        shuffle=True,
        repeat=True,
        stride=2,
    )
    (batch,) = _take(loader, 1)
    assert batch["clip"].shape == (4, 16, 28, 28, 3)
    assert batch["clip"].std() > 10
