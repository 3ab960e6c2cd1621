"""Images with label maps: layouts, colours and numbers, void, crops, subsets."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxmoe.data import Augmentation, describe, load_dataset, make_loader
from jaxmoe.data.listing.label_folders import CAMVID_CLASSES
from jaxmoe.data.rendered.synthetic import PLACES


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def image(seed, height=8, width=12):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3))


def labels(seed, classes=3, height=8, width=12):
    return np.random.default_rng(seed).integers(0, classes, (height, width))


def load(name, directory, tmp_path, **fields):
    return load_dataset(name, directory=directory, cache=tmp_path / "cache", **fields)


def write_camvid(root):
    for split, sequences in (("train", ["0001TP", "0016E5", "0016E5"]), ("test", ["Seq05VD"])):
        for number, sequence in enumerate(sequences):
            name = f"{sequence}_{number:05d}.png"
            write(root / split / name, image(number))
            write(root / f"{split}annot" / name, labels(number, classes=12))


def test_camvid_has_a_map_for_each_image_and_void_where_it_says(tmp_path):
    write_camvid(tmp_path / "camvid")
    dataset = load("camvid", tmp_path / "camvid", tmp_path, resolution=8)
    assert dataset.classes == CAMVID_CLASSES
    assert dataset.counts == {"train": 2, "validation": 1, "test": 1}
    assert dataset.held_out == ("validation",)
    example = dataset.test[0]
    stored = labels(0, classes=12)
    np.testing.assert_array_equal(example["label"], np.where(stored == 11, -1, stored))
    np.testing.assert_array_equal(example["frames"][np.array([0])][0], image(0))
    summary = describe(dataset).splits["test"]
    assert sum(summary.pixels_per_class.values()) == np.sum(stored < 11)
    assert summary.clips_per_class == {}


def test_a_subset_takes_training_examples_alone(tmp_path):
    write_camvid(tmp_path / "camvid")

    def counts(subset):
        return load("camvid", tmp_path / "camvid", tmp_path, resolution=8, subset=subset).counts

    whole = load("camvid", tmp_path / "camvid", tmp_path, resolution=8)
    kept = [record.path.split("/")[1].split("_")[0] for record in whole.train.records]
    one = counts("sequence=0016E5")
    assert one == {"train": kept.count("0016E5"), "validation": 1, "test": 1}
    assert counts("sequence=0001TP,0016E5")["train"] == 2
    for wrong, said in (
        ("sequence", "expected column=value"),
        ("sequenc=0001TP", "no column 'sequenc'.*did you mean sequence"),
        ("sequence=0001TB", "no training example.*0001TB"),
    ):
        with pytest.raises(ValueError, match=rf"^data\.subset: .*{said}"):
            counts(wrong)


def test_cityscapes_numbers_become_its_nineteen_classes(tmp_path):
    root = tmp_path / "cityscapes"
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "bonn")):
        for number in range(2):
            name = f"{city}_{number}"
            write(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", image(number))
            write(
                root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png",
                np.tile([0, 7, 26, 33], (8, 3)),
            )
    dataset = load("cityscapes", root, tmp_path, resolution=8)
    assert (len(dataset.classes), dataset.held_out) == (19, ("validation",))
    assert dataset.test[0]["label"][0, :4].tolist() == [-1, 0, 13, 18]
    # A city is held out as a whole.
    cities = [{r.path.split("/")[-2] for r in s.records} for s in dataset.splits.values()]
    assert sorted(map(len, cities)) == [1, 1, 1]


def test_a2d2_colours_become_the_eleven_classes_of_the_mixtures_paper(tmp_path):
    root = tmp_path / "a2d2" / "camera_lidar_semantic"
    colours = {"#ff0000": "Car 1", "#c80000": "Car 2", "#87ceff": "Sky", "#60458f": "Blurred area"}
    for number, sequence in enumerate(["20180807_145028", "20180810_142822", "20180925_101535"]):
        stem = sequence.replace("_", "")
        folders = root / sequence / "camera", root / sequence / "label"
        row = [(255, 0, 0), (200, 0, 0), (135, 206, 255), (96, 69, 143)] * 3
        write(folders[0] / "cam_front_center" / f"{stem}_camera_frontcenter_1.png", image(number))
        write(folders[1] / "cam_front_center" / f"{stem}_label_frontcenter_1.png", [row] * 8)
        (folders[0] / "cam_front_center" / f"{stem}_camera_frontcenter_1.json").write_text("{}")
    (root / "class_list.json").write_text(json.dumps(colours))
    dataset = load("a2d2", tmp_path / "a2d2", tmp_path, resolution=8)
    names = [dataset.classes[n] if n >= 0 else "void" for n in dataset.test[0]["label"][0, :4]]
    assert names == ["car", "car", "sky", "void"]
    assert sum(dataset.counts.values()) == 3
    assert dataset.skipped == ()
    # Another table of colours makes other maps.
    (root / "class_list.json").write_text(json.dumps({**colours, "#60458f": "Buildings"}))
    other = load("a2d2", tmp_path / "a2d2", tmp_path, resolution=8)
    assert other.classes[other.test[0]["label"][0, 3]] == "buildings"
    for wrong in ("{", "[1]", '{"#ff": "Car 1"}', '{"red": "Car 1"}', '{"#ff0000": 1}'):
        (root / "class_list.json").write_text(wrong)
        with pytest.raises(
            ValueError, match=r"^data\.directory: .* is no list of colours, .*Car 1"
        ):
            load("a2d2", tmp_path / "a2d2", tmp_path, resolution=8)


@pytest.mark.parametrize("layout", ["{split}{annot}", "{kind}/{split}", "{split}/{kind}"])
def test_pairs_of_folders_need_names_of_classes_alone(tmp_path, layout):
    root = tmp_path / "pairs"
    for split in ("train", "val", "test"):
        for number in range(2):
            images = layout.format(split=split, kind="images", annot="")
            maps = layout.format(split=split, kind="labels", annot="annot")
            write(root / images / f"{number}.jpg", image(number))
            write(root / maps / f"{number}.png", labels(number))
    with pytest.raises(FileNotFoundError, match=r"^data\.directory: .*classes\.txt"):
        load("segmentation_folder", root, tmp_path, resolution=8)
    (root / "classes.txt").write_text("ground\n\nsky\n")
    with pytest.raises(ValueError, match=r"^data\.directory: .*none empty"):
        load("segmentation_folder", root, tmp_path, resolution=8)
    (root / "classes.txt").write_text("ground\nsky\n\n")
    dataset = load("segmentation_folder", root, tmp_path, resolution=8)
    assert dataset.counts == {"train": 2, "validation": 2, "test": 2}
    expected = labels(0)
    np.testing.assert_array_equal(
        dataset.train[0]["label"], np.where(expected < 2, expected, -1)
    )  # a number without a name is void


def write_pairs(root, names, ending="", splits=("train", "test")):
    for split in splits:
        for number, name in enumerate(names):
            write(root / "images" / split / f"{name}.png", image(number))
            write(root / "masks" / split / f"{name}{ending}.png", labels(number))
    (root / "classes.txt").write_text("a\nb\nc\n")


def test_the_missing_map_is_the_one_that_is_named(tmp_path):
    write_pairs(tmp_path / "some", ["frame.001", "frame.002", "frame.003"])
    (tmp_path / "some" / "masks" / "train" / "frame.003.png").unlink()
    dataset = load("segmentation_folder", tmp_path / "some", tmp_path, resolution=8)
    assert dataset.skipped == (("images/train/frame.003.png", "no label map frame.003.png"),)
    write_pairs(tmp_path / "none", ["frame.001", "frame.002"], ending="_L")
    said = r"frame\.001\.png expected frame\.001\.png; there is frame\.001_L\.png"
    with pytest.raises(ValueError, match=rf"^data\.directory: no label map in .*{said}"):
        load("segmentation_folder", tmp_path / "none", tmp_path, resolution=8)


def test_two_maps_of_one_name_are_refused(tmp_path):
    write_pairs(tmp_path / "pairs", ["1", "2"])
    write(tmp_path / "pairs" / "masks" / "train" / "1.bmp", labels(0))
    with pytest.raises(ValueError, match=r"^data\.directory: .*1\.bmp and 1\.png are label maps"):
        load("segmentation_folder", tmp_path / "pairs", tmp_path, resolution=8)


def test_a_manifest_names_maps_and_columns_to_choose_by(tmp_path):
    root = tmp_path / "roads"
    lines = ["path,road,label_map,split"]
    for number, road in enumerate(["highway", "urban", "highway", "urban"]):
        write(root / f"{number}.png", image(number))
        write(root / f"map_{number}.png", labels(number))
        lines.append(f"{number}.png,{road},map_{number}.png,{'test' if number == 3 else 'train'}")
    (root / "manifest.csv").write_text("\n".join(lines))
    (root / "classes.txt").write_text("a\nb\nc\n")
    fields = {"resolution": 8, "validation_fraction": 0.34}
    dataset = load("segmentation_folder", root, tmp_path, subset="road=highway", **fields)
    assert {record.path for record in dataset.train.records} <= {"0.png", "2.png"}
    assert dataset.test.records[0].path == "3.png"


def test_a_map_that_cannot_be_used_is_named_and_skipped(tmp_path):
    root = tmp_path / "camvid"
    write_camvid(root)
    annotations = root / "trainannot"
    write(root / "train" / "0001TP_missing.png", image(7))
    write(root / "train" / "0001TP_void.png", image(7))
    write(annotations / "0001TP_void.png", np.full((8, 12), 11))
    write(root / "train" / "0001TP_colours.png", image(7))
    write(annotations / "0001TP_colours.png", image(7))
    write(root / "train" / "0001TP_shape.png", image(7))
    write(annotations / "0001TP_shape.png", labels(7, height=12))
    write(root / "train" / "0001TP_broken.png", image(7))
    (annotations / "0001TP_broken.png").write_bytes(b"\x89PNG broken")
    write(root / "train" / "0001TP_fractions.tif", image(7))
    Image.fromarray(np.zeros((8, 12), np.float32)).save(annotations / "0001TP_fractions.tif")
    dataset = load("camvid", root, tmp_path, resolution=8)
    said = {path.split("_")[1].split(".")[0]: why for path, why in dataset.skipped}
    assert set(said) == {"missing", "void", "colours", "shape", "broken", "fractions"}
    assert "expected class numbers" in said["fractions"]
    assert "no label map" in said["missing"]
    assert "no pixel of a known class" in said["void"]
    assert "expected class numbers" in said["colours"]
    assert "12 × 12; expected the shape of its image, which is 12 × 8, upright" in said["shape"]
    assert "cannot be decoded" in said["broken"]


def test_maps_are_resized_without_mixing_classes(tmp_path):
    root = tmp_path / "camvid"
    write_camvid(root)
    small = load("camvid", root, tmp_path, resolution=4)
    example = small.test[0]
    assert example["label"].shape == (4, 6)
    stored = labels(0, classes=12)
    blocks = stored.reshape(4, 2, 6, 2).transpose(0, 2, 1, 3).reshape(4, 6, 4)
    found = np.where(example["label"] < 0, 11, example["label"])
    assert np.all(np.any(blocks == found[..., None], axis=-1))


@pytest.mark.parametrize("augment", [False, True])
def test_a_crop_takes_image_and_labels_alike(tmp_path, augment):
    root = tmp_path / "camvid"
    for split, count in (("train", 4), ("test", 2)):
        for number in range(count):
            pattern = np.arange(96).reshape(8, 12) % 11
            write(root / split / f"s_{number}.png", np.repeat(pattern[..., None] * 20, 3, axis=-1))
            write(root / f"{split}annot" / f"s_{number}.png", pattern)
    dataset = load("camvid", root, tmp_path, resolution=8)
    loader = make_loader(
        dataset.train,
        batch_size=2,
        frames=1,
        height=6,
        width=10,
        augmentation=Augmentation(flip=True, padding=3) if augment else None,
        shuffle=augment,
        repeat=augment,
        seed=0,
    )
    batches = iter(loader)
    seen = [next(batches) for _ in range(4 if augment else 1)]
    for batch in seen:
        assert batch["clip"].shape == (2, 6, 10, 3)
        assert batch["label"].shape == (2, 6, 10)
        assert batch["label"].dtype == np.int32
        grey = batch["clip"][..., 0].astype(int)
        inside = batch["label"] >= 0
        np.testing.assert_array_equal(grey[inside], 20 * batch["label"][inside])
        assert not grey[~inside].any()  # padding is black and void
    if augment:
        assert any((batch["label"] < 0).any() for batch in seen)


def test_a_crop_beyond_the_image_names_the_side(tmp_path):
    write_camvid(tmp_path / "camvid")
    source = load("camvid", tmp_path / "camvid", tmp_path, resolution=8).test
    fields = {"batch_size": 1, "frames": 1, "augmentation": None, "shuffle": False, "repeat": False}
    with pytest.raises(ValueError, match=r"^data\.width: 13 .* 12 pixels"):
        make_loader(source, height=8, width=13, seed=0, **fields)
    with pytest.raises(ValueError, match=r"^data\.height: 9 .* 8 pixels"):
        make_loader(source, height=9, width=12, seed=0, **fields)


def test_rendered_scenes_are_of_two_places(tmp_path):
    fields = {"train_clips": 24, "validation_clips": 2, "test_clips": 4, "resolution": 32}
    scenes = load_dataset("synthetic_scenes", cache=tmp_path, **fields)
    again = load_dataset("synthetic_scenes", cache=tmp_path / "again", **fields)
    np.testing.assert_array_equal(scenes.train[3]["label"], again.train[3]["label"])
    shown = {}
    for place, usual in PLACES.items():
        part = load_dataset("synthetic_scenes", cache=tmp_path, subset=f"place={place}", **fields)
        assert len(part.train) == 12
        maps = np.stack([part.train[i]["label"] for i in range(12)])
        pixels = np.bincount(maps.ravel(), minlength=len(scenes.classes))
        usual_pixels = sum(pixels[scenes.classes.index(name)] for name in usual)
        shown[place] = usual_pixels / pixels[1:].sum()
    assert min(shown.values()) > 0.6
    assert max(shown.values()) < 1.0


def test_camvid_itself(real_data, tmp_path):
    dataset = load("camvid", real_data / "camvid", tmp_path, resolution=30)
    assert dataset.counts == {"train": 367, "validation": 101, "test": 233}
    assert dataset.skipped == ()
    pixels = describe(dataset).splits["test"].pixels_per_class
    # Road, building, sky and trees are most of a street.
    large = sorted(pixels, key=pixels.get)[-4:]
    assert set(large) == {"road", "building", "sky", "tree"}
