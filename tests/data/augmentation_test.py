"""Augmentation: one draw for a clip, labels that follow their image, and nothing by default."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from jaxmoe.config import ImageFolderConfig, SyntheticScenesConfig, VideoFolderConfig
from jaxmoe.data import DATASETS, Augmentation, load_dataset, make_loader
from jaxmoe.data.loading.augmentation import ColorJitter, Erasing
from jaxmoe.data.loading.crops import ResizedCrop, random_box
from jaxmoe.data.loading.views import RandomImage, RandomView

ALL = Augmentation(
    flip=True, padding=2, crop_scale=0.2, color_jitter=0.8, erasing=0.9, speed_jitter=0.5
)
SEED = st.integers(0, 2**32 - 1)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


class Frames:
    """What a `ClipSource` gives as `frames`."""

    times = None

    def __init__(self, clip):
        self._clip = clip
        self.height, self.width = clip.shape[1:3]

    def __len__(self):
        return len(self._clip)

    def __getitem__(self, frames):
        return self._clip[frames]


def example(clip, label=3):
    return {"frames": Frames(clip), "label": label, "index": 7}


def apply(steps, clip, label, seed):
    rng, label = np.random.default_rng(seed), np.asarray(label, np.int32)
    for step in steps:
        clip, label = step(clip, label, rng)
    return clip, label


@given(SEED)
def test_by_itself_it_only_crops(seed):
    clip = noise(6, 9, 11, 3)
    whole = RandomView(6, 1, 0.0, Augmentation().steps((9, 11)))
    found = whole(example(clip), np.random.default_rng(seed))
    np.testing.assert_array_equal(found["clip"], clip)
    assert (found["label"], found["index"]) == (3, 7)
    cropped, _ = apply(Augmentation().steps((5, 4)), clip, 3, seed)
    places = itertools.product(range(5), range(8))
    assert any(np.array_equal(cropped, clip[:, y : y + 5, x : x + 4]) for y, x in places)


@given(SEED, st.sampled_from(["crop_scale", "color_jitter", "erasing", None]))
def test_all_frames_are_changed_alike(seed, alone):
    chosen = ALL if alone is None else Augmentation(**{alone: getattr(ALL, alone)})
    clip = np.repeat(noise(1, 20, 24, 3), 5, axis=0)
    view = RandomView(5, 1, chosen.speed_jitter, chosen.steps((12, 16)))
    found = view(example(clip), np.random.default_rng(seed))["clip"]
    assert (found.shape, found.dtype) == ((5, 12, 16, 3), np.uint8)
    np.testing.assert_array_equal(found, np.repeat(found[:1], 5, axis=0))


@given(SEED, st.booleans())
def test_a_label_map_follows_its_image(seed, erased):
    label = np.repeat(np.repeat(np.arange(12).reshape(3, 4), 8, 0), 8, 1).astype(np.int16)
    image = np.repeat(20 * label[..., None] + 20, 3, axis=-1).astype(np.uint8)[None]
    augmentation = dataclasses.replace(ALL, color_jitter=0.0, erasing=float(erased), padding=6)
    view = RandomImage(augmentation.steps((18, 21)))
    found = view(example(image, label), np.random.default_rng(seed))
    shown, mapped = found["clip"], found["label"]
    assert (shown.shape, mapped.shape, mapped.dtype) == ((18, 21, 3), (18, 21), np.int32)
    # A pixel whose neighbours have its label has no other colour mixed in.
    same = np.ones_like(mapped, bool)
    for shift in itertools.product(range(-2, 3), repeat=2):
        same &= np.roll(mapped, shift, (0, 1)) == mapped
    same[:2] = same[-2:] = same[:, :2] = same[:, -2:] = False
    known = same & (mapped >= 0)
    expected = 20 * mapped[known][:, None] + 20
    np.testing.assert_array_equal(shown[known], np.repeat(expected, 3, axis=-1))
    if not erased:
        assert not shown[same & (mapped < 0)].any()  # padding


def test_areas_shapes_and_places_of_boxes_are_spread_as_promised():
    rng, side = np.random.default_rng(0), 400
    boxes = np.array(
        [random_box((side, side), (0.2, 1), (3 / 4, 4 / 3), rng) for _ in range(4000)], float
    )
    top, left, height, width = boxes.T
    assert (top + height).max() <= side
    assert (left + width).max() <= side
    assert min(top.min(), left.min()) >= 0
    share = height * width / side**2
    assert share.min() > 0.199
    # Uniform between 0.2 and 1; the standard error of a quantile is at most 0.0064.
    quantiles = np.quantile(share, np.linspace(0.1, 0.9, 9))
    np.testing.assert_allclose(quantiles, np.linspace(0.28, 0.92, 9), atol=0.025)
    shape = np.log(width / height)
    assert abs(shape).max() < np.log(4 / 3) + 0.01
    assert abs(shape[share < 0.5].mean()) < 0.02
    assert abs(shape[share < 0.5].std() - 2 * np.log(4 / 3) / 12**0.5) < 0.01
    small = share < 0.5
    place = left[small] / (side - width[small])
    np.testing.assert_allclose(np.quantile(place, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.floats(0.01, 1),
    st.floats(0.2, 1),
    SEED,
)
def test_a_box_lies_in_every_frame(size, least, narrowest, seed):
    rng = np.random.default_rng(seed)
    top, left, height, width = random_box(size, (least, 1), (narrowest, 1 / narrowest), rng)
    assert min(top, left) >= 0
    assert min(height, width) >= 1
    assert top + height <= size[0]
    assert left + width <= size[1]


def test_a_crop_of_everything_is_the_frame_resized():
    clip = noise(2, 24, 30, 3)
    found, label = ResizedCrop((12, 15), 1.0)(clip, np.int32(1), np.random.default_rng(0))
    means = clip.reshape(2, 12, 2, 15, 2, 3).mean((2, 4))
    # Halved, a bilinear pixel is a weighted mean of 4 × 4 others, and near that of the middle four.
    assert np.corrcoef(found.ravel(), means.ravel())[0, 1] > 0.9
    assert label == 1
    places = np.arange(36, dtype=np.int32).reshape(6, 6)
    _, middles = ResizedCrop((2, 2), 1.0)(noise(1, 6, 6, 3), places, np.random.default_rng(0))
    np.testing.assert_array_equal(middles, [[7, 10], [25, 28]])


class Fixed:
    """A generator that draws what it is told."""

    def __init__(self, *values):
        self._values = values

    def uniform(self, low, high, count):
        assert (low, high, count) == (-1, 1, len(self._values))
        return np.array(self._values)


@given(*[st.floats(-1, 1)] * 3, st.floats(0.1, 1))
def test_colours_are_those_of_three_changes_in_turn(brightness, contrast, saturation, strength):
    clip = (noise(2, 6, 7, 3) // 4 + 96).astype(np.uint8)
    found, _ = ColorJitter(strength)(clip, np.int32(0), Fixed(brightness, contrast, saturation))
    luma = np.array([0.299, 0.587, 0.114])
    expected = clip * (1 + strength * brightness)
    mean = (expected @ luma).mean()
    expected = mean + (1 + strength * contrast) * (expected - mean)
    grey = (expected @ luma)[..., None]
    expected = np.clip(grey + (1 + strength * saturation) * (expected - grey), 0, 255)
    assert abs(found - expected).max() <= 2.5  # the mean is of rounded greys


@pytest.mark.parametrize(
    ("place", "enhance"),
    [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)],
)
@pytest.mark.parametrize("draw", [-0.9, 0.6])
def test_each_change_is_pillows(place, enhance, draw):
    image = noise(1, 16, 16, 3) // 2 + 32
    drawn = [0.0, 0.0, 0.0]
    drawn[place] = draw
    found, _ = ColorJitter(0.5)(image, np.int32(0), Fixed(*drawn))
    expected = np.asarray(enhance(Image.fromarray(image[0])).enhance(1 + 0.5 * draw), float)
    assert abs(found[0] - expected).max() <= 1


@given(SEED)
def test_a_box_of_noise_is_void_and_all_else_stays(seed):
    clip, label = noise(3, 20, 30, 3), noise(20, 30).astype(np.int32)
    before = clip.copy(), label.copy()
    found, mapped = Erasing(1.0)(clip, label, np.random.default_rng(seed))
    np.testing.assert_array_equal(clip, before[0])
    np.testing.assert_array_equal(label, before[1])
    rows, columns = np.nonzero(mapped < 0)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    assert (mapped[box] == -1).all()
    assert 0.01 < mapped[box].size / mapped.size < 0.37
    changed = (found != clip).any(axis=(0, 3))
    assert not changed[mapped >= 0].any()
    assert changed[box].mean() > 0.8
    assert (found[1:, *box] == found[0][box]).all()


def test_as_many_are_erased_as_asked_for():
    clip, rng = np.zeros((1, 8, 8, 3), np.uint8), np.random.default_rng(0)
    erased = [Erasing(0.3)(clip, np.int32(0), rng)[0].any() for _ in range(1000)]
    assert abs(np.mean(erased) - 0.3) < 0.05


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return load_dataset(
        "synthetic_actions",
        frames=8,
        resolution=16,
        train_clips=12,
        validation_clips=5,
        test_clips=5,
        cache=tmp_path_factory.mktemp("cache"),
    )


def batches(clips, count, start=None, augmentation=ALL, **fields):
    loader = make_loader(
        clips.train, batch_size=4, frames=4, height=12, stride=1, augmentation=augmentation,
        shuffle=True, repeat=True, seed=0, **fields,
    )  # fmt: skip
    iterator = iter(loader)
    if start is not None:
        iterator.set_state(start)
    found = [next(iterator)["clip"] for _ in range(count)]
    state = iterator.get_state()
    iterator.close()
    return np.stack(found), state


def test_the_loader_draws_the_same_again_from_any_position_and_in_workers(clips):
    whole, _ = batches(clips, 6)
    _, state = batches(clips, 2)
    np.testing.assert_array_equal(batches(clips, 4, start=state)[0], whole[2:])
    np.testing.assert_array_equal(batches(clips, 6, workers=1)[0], whole)


@pytest.mark.parametrize("name", ["crop_scale", "color_jitter", "erasing", "speed_jitter", "flip"])
def test_each_field_changes_what_is_loaded(clips, name):
    plain, _ = batches(clips, 3, augmentation=Augmentation())
    other, _ = batches(clips, 3, augmentation=Augmentation(**{name: getattr(ALL, name)}))
    assert (plain != other).any()


def test_a_configuration_says_it_and_by_default_nothing():
    names = [field.name for field in dataclasses.fields(Augmentation)]
    for kind in DATASETS.values():
        assert kind().augmentation == Augmentation()
    video = VideoFolderConfig(stride=2, **{n: getattr(ALL, n) for n in names if n != "padding"})
    assert video.augmentation == dataclasses.replace(ALL, padding=0)
    image = ImageFolderConfig(**{n: getattr(ALL, n) for n in names if n != "speed_jitter"})
    assert image.augmentation == dataclasses.replace(ALL, speed_jitter=0.0)


@settings(max_examples=20)
@given(st.sampled_from(["crop_scale", "color_jitter", "erasing", "speed_jitter", "padding"]))
def test_a_number_out_of_range_is_one_line(name):
    most = {"padding": -1, "crop_scale": 1.5, "speed_jitter": 1.0}.get(name, 1.1)
    for value in (-0.5, most):
        with pytest.raises(ValueError, match=rf"^data\.{name}: {value} is not accepted; expected"):
            Augmentation(**{name: value})


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("synthetic_shapes", {"crop_scale": 1.2}, r"crop_scale: 1\.2 .* from 0\.01 to 1"),
        ("synthetic_shapes", {"crop_scale": 0.0}, r"crop_scale: 0\.0 .* from 0\.01 to 1"),
        ("synthetic_shapes", {"color_jitter": 1.5}, r"color_jitter: 1\.5 .* from 0 to 1"),
        ("synthetic_shapes", {"erasing": -0.1}, r"erasing: -0\.1 .* from 0 to 1"),
        ("synthetic_actions", {"speed_jitter": 1.0}, r"speed_jitter: 1\.0 .* from 0 to 0\.9"),
        ("synthetic_actions", {"speed_jitter": 0.2}, r"speed_jitter: 0\.2 .* data\.stride with it"),
        ("synthetic_actions", {"flip": True}, r"flip: True .* mirrored"),
        (
            "synthetic_shapes",
            {"domains": 2, "color_jitter": 0.1},
            r"color_jitter: 0\.1 .* another domain's",
        ),
        (
            "synthetic_shapes",
            {"domains": 2, "domain_cue": "stripes", "crop_scale": 0.5},
            r"crop_scale: 0\.5 .* expected none: .* another domain's",
        ),
    ],
)
def test_what_would_change_the_class_and_what_is_no_number_is_refused(kind, fields, message):
    with pytest.raises(ValueError, match=r"^data\." + message) as raised:
        load_dataset(kind, **fields)
    assert "\n" not in str(raised.value)


def test_scenes_are_augmented_with_their_maps(tmp_path):
    sizes = {"train_clips": 6, "validation_clips": 2, "test_clips": 2}
    config = SyntheticScenesConfig(
        resolution=24, height=20, crop_scale=0.3, color_jitter=0.4, erasing=0.5, flip=True, **sizes
    )
    loader = make_loader(
        load_dataset(config, cache=tmp_path).train, batch_size=6, frames=1, height=20,
        augmentation=config.augmentation, shuffle=False, repeat=True, seed=0,
    )  # fmt: skip
    batch = next(iter(loader))
    assert batch["clip"].shape == (6, 20, 20, 3)
    assert batch["label"].shape == (6, 20, 20)
    assert 0 < (batch["label"] < 0).mean() < 0.4
