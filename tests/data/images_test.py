"""Images: folders, arrays and rendered shapes, read back as they are and cut into batches."""

import numpy as np
import pytest
from PIL import Image

from jaxmoe.data import Augmentation, describe, load_dataset, make_loader
from jaxmoe.data.rendered.shapes import GROUND, SHAPES, render_shapes
from jaxmoe.runs.folder import describe_splits


def noise(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(file, image) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


@pytest.fixture
def folder(tmp_path):
    """Two classes of images with file names that people really have, and what is none."""
    root = tmp_path / "my images!"
    for number, label in enumerate(("cat [a]", "dog+")):
        for i in range(4):
            save(root / "train" / label / f"é {i}.png", noise(10, 12, 3, seed=10 * number + i))
        save(root / "test" / label / "grey.png", noise(10, 12, seed=5))
    (root / "train" / "dog+" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return root


def read(file) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return dict(arrays)


def pixels(example) -> np.ndarray:
    return example["frames"][np.arange(len(example["frames"]))]


def test_a_folder_of_images_comes_back_without_loss(folder):
    dataset = load_dataset("image_folder", directory=folder, resolution=10)
    assert dataset.classes == ("cat [a]", "dog+")
    assert dataset.held_out == ("validation",)
    assert dataset.padded == ()
    ((path, reason),) = dataset.skipped
    assert path == "train/dog+/broken.png"
    assert reason.startswith("cannot be decoded")
    for source in (dataset.train, dataset.validation):
        for i in range(len(source)):
            example = source[i]
            stored = np.asarray(Image.open(folder / example["path"]))
            np.testing.assert_array_equal(pixels(example), stored[None])
    grey = pixels(dataset.test[0])[0]
    assert grey.shape == (10, 12, 3)
    assert np.ptp(grey, axis=-1).max() == 0


def test_images_are_resized_by_their_shorter_side(folder):
    source = load_dataset("image_folder", directory=folder, resolution=5).train
    assert pixels(source[0]).shape == (1, 5, 6, 3)


def test_a_photograph_is_turned_upright(tmp_path):
    for split in ("train", "test"):
        for i in range(2):
            file = tmp_path / split / "a" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            exif = Image.Exif()
            exif[0x0112] = 6  # turn by 90° clockwise
            Image.fromarray(noise(8, 16, 3)).save(file, exif=exif)
    source = load_dataset("image_folder", directory=tmp_path, resolution=8).test
    assert pixels(source[0]).shape == (1, 16, 8, 3)


FOUR = {"x": noise(4, 8, 8, 3, seed=2), "y": np.arange(4)}


@pytest.fixture
def arrays(tmp_path):
    file = tmp_path / "images.npz"
    labels = np.arange(20) % 4
    np.savez(
        file,
        x_train=noise(20, 8, 8, 3),
        y_train=labels,
        x_test=noise(8, 8, 8, 3, seed=1),
        y_test=labels[:8],
    )
    return file


def test_arrays_come_back_as_they_are(arrays):
    dataset = load_dataset("npz", directory=arrays)
    assert dataset.classes == ("0", "1", "2", "3")
    assert dataset.counts["test"] == 8
    assert dataset.counts["train"] + dataset.counts["validation"] == 20
    stored = read(arrays)
    for i in range(8):
        example = dataset.test[i]
        np.testing.assert_array_equal(pixels(example)[0], stored["x_test"][i])
        assert example["label"] == stored["y_test"][i]
    changed = {**stored, "x_test": stored["x_test"] // 2}
    np.savez(arrays, **changed)
    example = load_dataset("npz", directory=arrays).test[0]
    np.testing.assert_array_equal(pixels(example)[0], changed["x_test"][0])


def test_splits_of_other_images_are_other_splits(arrays):
    before = describe_splits(load_dataset("npz", directory=arrays))
    stored = read(arrays)
    leaked = stored["x_train"].copy()
    leaked[stored["y_train"] == 0] = stored["x_test"][0]
    np.savez(arrays, **{**stored, "x_train": leaked})
    after = describe_splits(load_dataset("npz", directory=arrays))
    assert after["train"] != before["train"]
    assert after["test"] == before["test"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": noise(20, 8, 8, 3) / 255}, r"x_train of .* is float64\[20, 8, 8, 3\]"),
        ({"x_train": noise(20, 3, 8, 8)}, r"channels first; .*x\.transpose\(0, 2, 3, 1\)"),
        ({"x_test": noise(8, 1, 8, 9) / 255}, r"x_test of .* channels first"),
        ({"x_train": noise(20, 8, 8, 4)}, r"is uint8\[20, 8, 8, 4\]; expected uint8\[N, H, W, 3\]"),
        ({"x_train": noise(20, 8, 8, 3) // 128}, r"no value above 1; expected pixels of 0 to 255"),
        ({"x_train": noise(0, 8, 8, 3), "y_train": np.zeros(0, int)}, r"x_train of .* and empty"),
        ({"y_train": np.eye(4)[np.arange(20) % 4]}, r"float64\[20, 4\], one-hot .*y\.argmax\(1\)"),
        ({"y_train": np.eye(4, dtype=bool)[np.arange(20) % 4]}, r"bool\[20, 4\], one-hot"),
        ({"y_train": np.arange(20)[:, None] % 4}, r"int64\[20, 1\], a column; .*y\[:, 0\]"),
        ({"y_train": np.arange(20) % 4.0}, r"float64\[20\]; expected .*: y\.astype\(int\)"),
        ({"y_train": np.linspace(0, 3, 20)}, r"float64\[20\]; expected .*some are fractions"),
        ({"y_train": np.full(20, np.nan)}, r"float64\[20\]; expected .*some are fractions"),
        ({"y_train": np.full((20, 2), 0.5)}, r"is float64\[20, 2\]; expected integers"),
        ({"y_train": np.array(["cat"] * 20)}, r"is <U3\[20\]; .*belong in an array `classes`"),
        (
            {"y_train": np.arange(20) % 4 + 1, "y_test": np.arange(8) % 4 + 1},
            r"labels of .* go from 1 to 4; expected class numbers from 0: y - 1, or the names of 5",
        ),
        (
            {
                "y_train": np.arange(20) % 4 + 1,
                "y_test": np.arange(8) % 4 + 1,
                "classes": np.array(["a", "b", "c", "d"]),
            },
            r"names 4 classes and has a label 4; expected 0 to 3: y - 1",
        ),
        (
            {"y_train": np.arange(20) % 4 + 10**9 * (np.arange(20) > 4)},
            r"a label 1000000003 and 28",
        ),
        ({"y_train": np.zeros(19, int)}, r"y_train of .* is int64\[19\]; expected integers"),
        ({"y_test": np.full(8, -1)}, r"y_test of .* label below 0, -1"),
        ({"classes": np.array(["a", "b"])}, r"names 2 classes and has a label 3; expected 0 to 1$"),
        ({"y_test": np.full(8, 7)}, r"label '7' of test/000000-\w{8} has no"),
        ({"classes": np.array(["a", "b", "a", "c"])}, r"not a list of different names"),
        ({"classes": np.array("abcd")}, r"not a list of different names"),
        ({"classes": np.array([b"a", b"b", b"\xe9", b"d"])}, r"classes of .* are no text in UTF-8"),
        ({"x_val": noise(4, 8, 8, 3)}, r"has no y_val"),
        ({"labels_test": np.arange(8), "y_test": None}, r"has no y_test"),
        ({"x_test": None}, r"has no x_test"),
        (
            {f"{a}_{s}": b for s in ("val", "validation") for a, b in FOUR.items()},
            r"has x_validation and x_val; expected one",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(arrays, changes, message):
    stored = read(arrays)
    changed = {**stored, **changes}
    np.savez(arrays, **{name: array for name, array in changed.items() if array is not None})
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset("npz", directory=arrays)
    assert str(caught.value).startswith("data.directory: ")
    assert "\n" not in str(caught.value)


def test_labels_may_begin_above_0_where_the_classes_have_names(arrays):
    stored = read(arrays)
    names = np.array(["background", "a", "b", "c", "d"])
    shifted = {name: stored[name] + 1 for name in ("y_train", "y_test")}
    np.savez(arrays, **{**stored, **shifted, "classes": names})
    dataset = load_dataset("npz", directory=arrays)
    assert dataset.classes[int(dataset.test.labels[0])] == "a"
    assert describe(dataset).splits["train"].absent == ("background",)
    in_bytes = np.array([name.encode() for name in names])
    np.savez(arrays, **{**stored, **shifted, "classes": in_bytes})
    assert load_dataset("npz", directory=arrays).classes == tuple(names)


def test_arrays_have_a_size_of_their_own(arrays):
    assert load_dataset("npz", directory=arrays, resolution=8).train.smallest == (8, 8)
    with pytest.raises(ValueError, match=r"^data\.resolution: 16; .* 8 pixels"):
        load_dataset("npz", directory=arrays, resolution=16)
    source = load_dataset("npz", directory=arrays).test
    with pytest.raises(ValueError, match=r"^data\.height: 9 is more than the 8 pixels") as caught:
        loader_of(source, height=9)
    assert "data.resolution" not in str(caught.value)


def test_what_is_no_npz_file_is_one_line(tmp_path, arrays):
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(ValueError, match=r"data\.directory: .* is no \.npz file"):
        load_dataset("npz", directory=tmp_path / "text.npz")
    whole = arrays.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    np.save(tmp_path / "one.npy", np.zeros(3))
    for content in (whole[:100], bytes(flipped), b"", (tmp_path / "one.npy").read_bytes()):
        arrays.write_bytes(content)
        with pytest.raises(ValueError, match=r"data\.directory: .* is no \.npz file"):
            load_dataset("npz", directory=arrays)
    with pytest.raises(FileNotFoundError, match=r"none\.npz does not exist; expected an"):
        load_dataset("npz", directory=tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match=r"is a folder; expected an \.npz file"):
        load_dataset("npz", directory=tmp_path)
    with pytest.raises(ValueError, match=r"data\.manifest: npz has no such field; video_folder"):
        load_dataset("npz", directory=arrays, manifest="m.csv")


def test_tiny_imagenet_from_its_archive(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    wnids = ("n02", "n01")
    for wnid in wnids:
        for i in range(8):
            save(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", noise(64, 64, 3, seed=i))
    for i in range(4):
        save(root / "val" / "images" / f"val_{i}.JPEG", noise(64, 64, 3, seed=i))
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    lines = "".join(f"val_{i}.JPEG\t{wnids[i % 2]}\t0\t0\t62\t62\n" for i in range(4))
    (root / "val" / "val_annotations.txt").write_text(lines)
    for directory in (tmp_path, root):
        dataset = load_dataset("tiny_imagenet", directory=directory, resolution=64)
        assert dataset.classes == wnids
        assert dataset.counts["test"] == 4
        assert dataset.held_out == ("validation",)
        assert dataset.test.labels.tolist() == [0, 1, 0, 1]
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn09\n")
    with pytest.raises(ValueError, match=r"data\.directory: .*, line 1: expected an image"):
        load_dataset("tiny_imagenet", directory=root)
    (root / "wnids.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.directory: .* has no wnids\.txt"):
        load_dataset("tiny_imagenet", directory=root)


def loader_of(source, **fields):
    options = {"augmentation": None, "shuffle": False, "repeat": False, "seed": 0, "height": 8}
    return make_loader(source, batch_size=5, frames=16, **{**options, **fields})


def test_batches_of_images_have_no_axis_of_time(arrays):
    dataset = load_dataset("npz", directory=arrays)
    batches = list(loader_of(dataset.test))
    assert [batch["clip"].shape for batch in batches] == [(5, 8, 8, 3)] * 2
    assert batches[1]["valid"].tolist() == [True] * 3 + [False] * 2
    stored = read(arrays)["x_test"]
    np.testing.assert_array_equal(np.concatenate([b["clip"] for b in batches])[:8], stored)
    cropped = next(iter(loader_of(dataset.test, height=4)))["clip"]
    np.testing.assert_array_equal(cropped, stored[:5, 2:6, 2:6])


def test_training_crops_move_a_padded_image(arrays):
    dataset = load_dataset("npz", directory=arrays)
    moved = Augmentation(flip=True, padding=2)
    loader = loader_of(dataset.train, augmentation=moved, repeat=True)
    images = {record.index: i for i, record in enumerate(dataset.train.records)}
    places, mirrored, batches = set(), set(), iter(loader)
    for _ in range(60):
        batch = next(batches)
        for clip, index in zip(batch["clip"], batch["index"], strict=True):
            image = pixels(dataset.train[images[int(index)]])[0]
            padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
            found = [
                (top, left, flip)
                for top in range(5)
                for left in range(5)
                for flip in (False, True)
                if np.array_equal(clip[:, ::-1] if flip else clip, padded[top:, left:][:8, :8])
            ]
            assert found
            places.add(found[0][:2])
            mirrored.add(found[0][2])
    assert len(places) == 25
    assert mirrored == {False, True}


def test_a_rendered_image_depends_on_its_own_key_alone():
    shapes = np.arange(20)[:, None] % len(SHAPES)
    keys = [(3, 0, i) for i in range(20)]
    images, maps = render_shapes(shapes, keys, 24)
    assert images.shape == (20, 24, 24, 3)
    alone, map_alone = render_shapes(shapes[7:8], keys[7:8], 24)
    np.testing.assert_array_equal(images[7], alone[0])
    np.testing.assert_array_equal(maps[7], map_alone[0])
    other, _ = render_shapes(shapes[7:8], [(4, 0, 7)], 24)
    assert (other[0] != alone[0]).mean() > 0.5
    for shape, label_map in zip(shapes[:, 0], maps, strict=True):
        assert set(np.unique(label_map)) == {GROUND, shape + 1}
        assert 0.02 < (label_map != GROUND).mean() < 0.6


def test_later_shapes_hide_earlier_ones():
    disc, bar = SHAPES.index("disc"), SHAPES.index("bar")
    key = [(0, 0, 1)]
    one, two = (render_shapes(np.array([row]), key, 32)[1][0] for row in ([disc, -1], [disc, bar]))
    np.testing.assert_array_equal(two == bar + 1, (two != one) | (two == bar + 1))
    assert set(np.unique(one)) == {GROUND, disc + 1}
    assert bar + 1 in np.unique(two)


def test_the_mean_colour_of_an_image_says_little_of_its_shape():
    count = 400
    shapes = np.arange(count)[:, None] % len(SHAPES)
    images, _ = render_shapes(shapes, [(0, 1, i) for i in range(count)], 16)
    colours = images.reshape(count, -1, 3).mean(1) / 255.0
    spread = colours.reshape(-1, len(SHAPES), 3).mean(0)
    assert np.ptp(spread, axis=0).max() < 0.2


def test_the_dataset_of_shapes():
    sizes = {"train_clips": 20, "validation_clips": 10, "test_clips": 10}
    dataset = load_dataset("synthetic_shapes", resolution=16, **sizes)
    assert dataset.classes == SHAPES
    assert np.bincount(dataset.train.labels).tolist() == [2] * 10
    assert pixels(dataset.train[0]).shape == (1, 16, 16, 3)
    with pytest.raises(ValueError, match=r"data\.height: 7; rendered images need at least 8"):
        load_dataset("synthetic_shapes", resolution=7, **sizes)
