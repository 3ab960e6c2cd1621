"""Lists images with label maps: CamVid, Cityscapes, A2D2, and pairs of folders in general."""

import dataclasses
import fnmatch
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jaxmoe.data.listing.label_maps import Colour, ReadMap, read_colours, read_numbers
from jaxmoe.data.listing.listing import SPLIT_NAMES, ListedFile, Listing, make_listing
from jaxmoe.data.listing.manifest import read_manifest
from jaxmoe.data.listing.text import read_text
from jaxmoe.data.listing.walking import files_below, folders_in

_FIELD = "data.directory"

_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga"),
}

CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)

# Cityscapes' own numbers of the 19 classes that it is evaluated on.
_CITYSCAPES = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"},
    **{19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"},
    **{24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"},
    **{32: "motorcycle", 33: "bicycle"},
}

# The 11 classes of the mixtures' paper, and what A2D2 calls their parts; all else is void.
_A2D2 = {
    "person": ("Bicycle", "Pedestrian", "Animals"),
    "car": ("Car", "Small vehicles", "Ego car"),
    "truck": ("Truck", "Utility vehicle", "Tractor"),
    "drivable": ("Drivable cobblestone", "Parking area", "RD normal street"),
    "nondrivable": (
        *("Curbstone", "Non-drivable street", "RD restricted area"),
        *("Slow drive area", "Sidewalk"),
    ),
    "blocker": (
        *("Irrelevant signs", "Road blocks", "Obstacles / trash", "Poles"),
        *("Grid structure", "Signal corpus"),
    ),
    "info": (
        *("Traffic signal", "Traffic sign", "Sidebars", "Speed bumper", "Zebra crossing"),
        *("Electronic traffic", "Painted driv. instr.", "Traffic guide obj."),
    ),
    "sky": ("Sky",),
    "buildings": ("Buildings",),
    "nature": ("Nature object",),
    "lanes": ("Solid line", "Dashed line"),
}


class LabelledFiles(NamedTuple):
    """Images with label maps, how a map is read, and the table by which it is."""

    listing: Listing
    read_label_map: ReadMap
    table: Mapping


def list_camvid(directory: pathlib.Path) -> LabelledFiles:
    """CamVid with 11 classes and void, as SegNet's authors arranged it: `train`, `trainannot`, ….

    The column `sequence` is what a file's name begins with.

    Raises:
      ValueError, FileNotFoundError: one line that names the field.
    """
    _require(directory, "train", "trainannot", what="CamVid")
    files = [
        _pair(directory, image, labels / image.name, split, sequence=image.name.split("_")[0])
        for folder, split in SPLIT_NAMES.items()
        for labels in [directory / f"{folder}annot"]
        if labels.is_dir()
        for image in _images(directory / folder)
    ]
    numbers = {number: number for number in range(len(CAMVID_CLASSES))}
    listing = make_listing(files, CAMVID_CLASSES, _FIELD)
    return LabelledFiles(listing, read_numbers(numbers), numbers)


def list_cityscapes(directory: pathlib.Path) -> LabelledFiles:
    """Cityscapes with its 19 classes: `leftImg8bit` and `gtFine`, with the column `city`.

    The published test images have no labels, so `val` is the test split; a validation split is held
    out of train.

    Raises:
      ValueError, FileNotFoundError: one line that names the field.
    """
    _require(directory, "leftImg8bit/train", "gtFine/train", what="Cityscapes")
    files = []
    for folder, split in (("train", "train"), ("val", "test")):
        for image in _images(directory / "leftImg8bit" / folder, "*_leftImg8bit"):
            city = image.parent.name
            name = image.name.replace("_leftImg8bit", "_gtFine_labelIds")
            labels = directory / "gtFine" / folder / city / name
            files.append(_pair(directory, image, labels, split, city=city))
    numbers = {number: place for place, number in enumerate(_CITYSCAPES)}
    listing = make_listing(files, tuple(_CITYSCAPES.values()), _FIELD)
    return LabelledFiles(listing, read_numbers(numbers), numbers)


def list_a2d2(directory: pathlib.Path) -> LabelledFiles:
    """A2D2's front camera with 11 classes, with the column `sequence`; test is held out of train.

    `<sequence>/camera/cam_front_center/*_camera_*.png`, `<sequence>/label/…/*_label_*.png`, and
    `class_list.json`, which names the colours. The classes are those of
    https://arxiv.org/abs/2412.11608; its highway and urban subsets were chosen image by image and
    need a manifest.

    Raises:
      ValueError, FileNotFoundError: one line that names the field.
    """
    nested = directory / "camera_lidar_semantic"
    root = nested if nested.is_dir() else directory
    _require(root, "class_list.json", what="A2D2")
    files = [
        _pair(root, image, labels / name, "train", sequence=sequence.name)
        for sequence in folders_in(root)
        if (sequence / "camera").is_dir()
        for labels in [sequence / "label" / "cam_front_center"]
        for image in _images(sequence / "camera" / "cam_front_center", "*_camera_*")
        for name in [image.name.replace("_camera_", "_label_")]
    ]
    colours = _a2d2_colours(root / "class_list.json")
    listing = make_listing(files, tuple(_A2D2), _FIELD)
    return LabelledFiles(listing, read_colours(colours), colours)


def _a2d2_colours(file: pathlib.Path) -> dict[Colour, int]:
    """Each colour of a part of one of the classes, and the class."""
    part_of = {part: place for place, parts in enumerate(_A2D2.values()) for part in parts}
    colours = {}
    try:
        for code, name in json.loads(read_text(file, _FIELD)).items():
            part = re.sub(r" \d+$", "", name)  # "Car 3" is a car
            if part in part_of:
                red, green, blue = bytes.fromhex(code.removeprefix("#"))
                colours[red, green, blue] = part_of[part]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'{_FIELD}: {file} is no list of colours, {{"#ff0000": "Car 1", …}}: {error}'
        ) from None
    if not colours:
        raise ValueError(f"{_FIELD}: {file} names no class of A2D2")
    return colours


def list_pairs(
    directory: pathlib.Path, manifest: pathlib.Path | None, *, trains: bool = True
) -> LabelledFiles:
    """Images and label maps of class numbers, by a manifest or by pairs of folders.

    `classes.txt` has a class on each line, in the order of their numbers from 0; other numbers are
    void. A manifest has the columns `path,label_map,split` and any others. Without one, folders
    are `<split>` and `<split>annot`, `images/<split>` and `labels/<split>`, or `<split>/images` and
    `<split>/labels`; `labels` may be `annotations` or `masks`. A map has its image's name, whatever
    the two end with.

    Raises:
      ValueError, FileNotFoundError: one line that names the field.
    """
    names = directory / "classes.txt"
    if not names.is_file():
        raise FileNotFoundError(
            f"{_FIELD}: {directory} has no classes.txt; expected a class on each line, in the "
            "order of the label maps' numbers from 0"
        )
    lines = read_text(names, _FIELD).rstrip().splitlines()
    classes = tuple(line.strip() for line in lines)
    if not 1 <= len(classes) <= 255 or len(set(classes)) < len(classes) or "" in classes:
        raise ValueError(
            f"{_FIELD}: {names} has {len(classes)} lines; expected 1 to 255 names, each on a line "
            "of its own, none empty and none twice"
        )
    if manifest is not None:
        listing = read_manifest(manifest, directory, label_maps=True, trains=trains)
        listing = dataclasses.replace(listing, classes=classes)
    else:
        files = list(_folder_pairs(directory))
        if not files:
            raise ValueError(
                f"{_FIELD}: {directory} holds neither manifest.csv nor pairs of folders with "
                "images (train and trainannot, images/train and labels/train, or train/images and "
                "train/labels)"
            )
        listing = make_listing(files, classes, _FIELD, trains=trains)
    numbers = {number: number for number in range(len(classes))}
    return LabelledFiles(listing, read_numbers(numbers), numbers)


def _folder_pairs(root: pathlib.Path) -> Iterator[ListedFile]:
    for folder, split in SPLIT_NAMES.items():
        pairs = [(root / folder, root / f"{folder}annot")]
        for labels in ("labels", "annotations", "masks"):
            pairs += [
                (root / "images" / folder, root / labels / folder),
                (root / folder / "images", root / folder / labels),
            ]
        for images, maps in pairs:
            if images.is_dir() and maps.is_dir():
                yield from _paired(root, images, maps, split)


def _paired(
    root: pathlib.Path, images: pathlib.Path, maps: pathlib.Path, split: str
) -> Iterator[ListedFile]:
    """The images of a folder, each with the map that has its name, there or not."""
    found: dict[pathlib.Path, pathlib.Path] = {}
    for file in _images(maps):
        name = file.relative_to(maps).with_suffix("")
        if name in found:
            raise ValueError(
                f"{_FIELD}: {found[name]} and {file.name} are label maps of one name; expected one"
            )
        found[name] = file
    files = _images(images)
    wanted = {image: image.relative_to(images).with_suffix("") for image in files}
    if files and found and not found.keys() & set(wanted.values()):
        raise ValueError(
            f"{_FIELD}: no label map in {maps} has the name of an image in {images}: of "
            f"{files[0].name} expected {_with_ending(wanted[files[0]])}; there is "
            f"{next(iter(found.values())).relative_to(maps)}"
        )
    for image, name in wanted.items():
        yield _pair(root, image, found.get(name, maps / _with_ending(name)), split)


def _with_ending(name: pathlib.Path) -> pathlib.Path:
    """Not `with_suffix`: a name may have a dot, as `frame.003` has."""
    return name.with_name(f"{name.name}.png")


def _pair(
    root: pathlib.Path, image: pathlib.Path, labels: pathlib.Path, split: str, **columns: str
) -> ListedFile:
    return ListedFile(image.relative_to(root).as_posix(), image, "", split, labels, columns)


def _images(folder: pathlib.Path, name: str = "*") -> list[pathlib.Path]:
    """The image files below a folder whose names, without their ending, match."""
    if not folder.is_dir():
        return []
    return [
        file
        for file in files_below(folder)
        if file.suffix.lower() in _SUFFIXES and fnmatch.fnmatchcase(file.stem, name)
    ]


def _require(root: pathlib.Path, *names: str, what: str) -> None:
    for name in names:
        if not (root / name).exists():
            raise FileNotFoundError(f"{_FIELD}: {root} has no {name}; it is no {what}")
