"""Picture files as people have them: what each shows, or why it is refused."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxmoe.data import load_dataset
from jaxmoe.data.decoding.frame_codec import VOID
from jaxmoe.data.decoding.still import read_image, turn
from jaxmoe.data.decoding.unusable import UnusableClipError
from jaxmoe.data.listing.label_maps import read_colours, read_numbers

RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))
LABELS = np.arange(96, dtype=np.uint8).reshape(8, 12) % 5
ALL = {number: number for number in range(34)}


def noise(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(file, image, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, **options)
    return file


def exif(orientation) -> dict[str, Image.Exif]:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return {"exif": tags}


def read(file) -> np.ndarray:
    with Image.open(file) as image:
        return read_image(file, min(image.size))


def refused(reader, *arguments) -> str:
    with pytest.raises(UnusableClipError) as raised:
        reader(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "I;16"), ("a.tif", "I;16"), ("a.tif", "I;16B"), ("a.jp2", "I;16")],
)
def test_sixteen_bits_of_grey_are_the_same_in_eight(tmp_path, name, mode):
    words = RAMP.astype(">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, words.shape[::-1], words.tobytes())
    shown = read(save(tmp_path / name, image))
    np.testing.assert_allclose(shown, (RAMP / 257)[..., None] * np.ones(3), atol=1)


def test_classes_of_sixteen_bits_keep_their_brightness(tmp_path):
    rng = np.random.default_rng(0)
    for label, level in (("dark", 9000), ("bright", 40000)):
        for i in range(5):
            words = (level + rng.integers(0, 6000, (12, 12))).astype(np.uint16)
            save(tmp_path / label / f"{i}.png", words)
    dataset = load_dataset("image_folder", directory=tmp_path, resolution=12)
    assert dataset.skipped == dataset.notes == ()
    for i, label in enumerate(dataset.test.labels):
        mean = dataset.test[i]["frames"][np.array([0])].mean()
        assert mean == pytest.approx({"dark": 46, "bright": 167}[dataset.classes[label]], abs=3)


def test_twelve_bits_of_sixteen_are_refused_and_black_is_black(tmp_path):
    assert "16 bits and no value above 4095" in refused(read, save(tmp_path / "a.png", RAMP >> 4))
    assert not read(save(tmp_path / "b.png", RAMP * 0)).any()
    white = b"P5 64 8 4095\n" + (RAMP >> 4).astype(">u2").tobytes()  # says what is white
    (tmp_path / "c.pgm").write_bytes(white)
    np.testing.assert_allclose(read(tmp_path / "c.pgm")[..., 0], RAMP / 257, atol=1)


def test_a_data_set_of_fourteen_bits_of_sixteen_says_that_it_is_dark(tmp_path):
    for i in range(5):
        save(tmp_path / "a" / f"{i}.png", np.maximum(RAMP // 4, i) - i)
        save(tmp_path / "a" / f"grey{i}.png", noise(8, 8))
    for _ in range(2):  # prepared, and read again
        (note,) = load_dataset("image_folder", directory=tmp_path, resolution=8).notes
        assert note.startswith("5 pictures of 16 bits have no value above 16383 of 65535")


@pytest.mark.parametrize("values", [RAMP.astype(np.int32), RAMP / np.float32(65535)])
def test_numbers_whose_white_nothing_tells_are_refused(tmp_path, values):
    assert "nothing tells; expected" in refused(read, save(tmp_path / "a.tif", values))


def test_colour_under_transparency_does_not_show(tmp_path):
    hidden, alpha = noise(6, 9, 3), noise(6, 9, seed=1)
    alpha[:2], alpha[2:4] = 0, 255
    expected = hidden * (alpha[..., None] / 255)
    for name in ("a.png", "a.tif", "a.webp"):
        options = {"lossless": True, "exact": True} if name == "a.webp" else {}
        shown = read(save(tmp_path / name, np.dstack([hidden, alpha]), **options))
        np.testing.assert_allclose(shown, expected, atol=1)
        np.testing.assert_array_equal(shown[2:4], hidden[2:4])
    grey = Image.merge("LA", [Image.fromarray(hidden[..., 0]), Image.fromarray(alpha)])
    shown = read(save(tmp_path / "grey.png", grey))
    np.testing.assert_allclose(shown, expected[..., :1] * np.ones(3), atol=1)
    palette = Image.fromarray(hidden).quantize(16)
    places, colours = np.asarray(palette), np.reshape(palette.getpalette(), (-1, 3))
    shown = read(save(tmp_path / "b.png", palette, transparency=int(places[0, 0])))
    lit = (places != places[0, 0])[..., None]
    np.testing.assert_array_equal(shown, colours[places] * lit)
    gone = save(tmp_path / "c.png", np.dstack([hidden, alpha * 0]))
    assert "wholly transparent" in refused(read, gone)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_a_turned_picture_is_upright(tmp_path, name, orientation):
    stored = noise(6, 9, 3)
    options = {"lossless": True} if name == "a.webp" else {}
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image))
    file = save(tmp_path / name, stored, **exif(orientation), **options)
    np.testing.assert_array_equal(read_image(file, 6), upright)
    np.testing.assert_array_equal(turn(stored, orientation), upright)
    grey = save(tmp_path / f"grey{name[1:]}", stored[..., 0], **exif(orientation), **options)
    np.testing.assert_array_equal(read_image(grey, 6)[..., 0], upright[..., 0])


def test_several_pictures_are_refused_but_for_previews(tmp_path):
    first, other = (Image.fromarray(np.full((8, 12, 3), grey, np.uint8)) for grey in (200, 20))
    for name in ("a.gif", "a.tif", "a.png", "a.webp"):
        file = save(tmp_path / name, first, save_all=True, append_images=[other])
        assert "has 2 pictures" in refused(read, file)
    preview = other.resize((6, 4))
    preview.encoderinfo = {"tiffinfo": {254: 1}}
    pyramid = save(tmp_path / "b.tif", first, save_all=True, append_images=[preview])
    assert (read(pyramid) == 200).all()
    phone = save(tmp_path / "c.jpg", first, format="MPO", save_all=True, append_images=[other])
    np.testing.assert_allclose(read(phone), 200, atol=2)


def test_a_map_has_the_numbers_that_were_stored(tmp_path):
    palette = Image.frombytes("P", (12, 8), LABELS.tobytes())
    palette.putpalette(noise(768).tobytes())
    deep = LABELS.astype(np.uint16) * 8
    files = {
        "a.png": LABELS,
        "a.bmp": LABELS,
        "palette.png": palette,
        "palette.gif": palette,
        "a.tif": LABELS,
        "deep.png": deep,
        "deep.tif": deep.astype(np.int32),
        "bits.png": LABELS > 2,
        "bits.tif": LABELS > 2,
    }
    for name, pixels in files.items():
        found = read_numbers(ALL)(save(tmp_path / name, pixels), (8, 12), 1)
        expected = pixels if isinstance(pixels, np.ndarray) else LABELS
        np.testing.assert_array_equal(found, expected.astype(int), err_msg=name)
    for white in (4, 20, 255, 400, 65535):
        word = ">u2" if white > 255 else "u1"
        (tmp_path / "a.pgm").write_bytes(
            f"P5 12 8 {white}\n".encode() + LABELS.astype(word).tobytes()
        )
        np.testing.assert_array_equal(
            read_numbers(ALL)(tmp_path / "a.pgm", (8, 12), 1), LABELS, err_msg=f"{white}"
        )


def test_a_number_above_255_is_void(tmp_path):
    words = np.tile(np.array([0, 3, 256, 259], np.uint16), (8, 3))
    found = read_numbers({0: 0, 3: 1})(save(tmp_path / "a.png", words), (8, 12), 1)
    np.testing.assert_array_equal(found, np.tile([0, 1, VOID, VOID], (8, 3)))


def test_maps_that_may_say_something_else_are_refused(tmp_path):
    colours = np.repeat(LABELS[..., None], 3, axis=-1)
    clear = np.full_like(LABELS, 255)
    clear[0] = 0
    alpha = Image.merge("LA", [Image.fromarray(LABELS), Image.fromarray(clear)])
    for name, pixels, options, said in (
        ("a.jpg", LABELS, {}, "a.jpg is JPEG, which may change the numbers; expected PNG"),
        ("b.tif", LABELS, {"compression": "jpeg"}, "is TIFF with jpeg"),
        ("a.webp", colours, {"lossless": True}, "is WEBP"),
        ("a.jp2", LABELS, {}, "is JPEG2000"),
        ("b.png", colours, {}, "b.png has three channels (RGB), all the same; expected class"),
        ("e.png", noise(8, 12, 3), {}, "e.png has colours (RGB); expected class numbers"),
        ("c.png", alpha, {}, "c.png is transparent in places"),
        ("c.tif", LABELS.astype(np.float32), {}, "has fractions; expected class numbers"),
        ("a.pbm", LABELS > 2, {}, "is PBM, whose 1 is black"),
    ):
        file = save(tmp_path / name, pixels, **options)
        assert said in refused(read_numbers(ALL), file, (8, 12), 1)
    assert "expected colours" in refused(
        read_colours({(0, 0, 0): 0}), save(tmp_path / "d.png", LABELS), (8, 12), 1
    )
    assert "is JPEG" in refused(
        read_colours({(0, 0, 0): 0}), save(tmp_path / "d.jpg", colours), (8, 12), 1
    )


def test_a_map_of_colours_may_have_a_palette(tmp_path):
    file = save(tmp_path / "a.png", Image.fromarray(noise(8, 12, 3)).quantize(4))
    with Image.open(file) as image:
        colour = image.convert("RGB").getpixel((0, 0))
    found = read_colours({colour: 3})(file, (8, 12), 1)
    with Image.open(file) as image:
        same = (np.asarray(image.convert("RGB")) == colour).all(-1)
    np.testing.assert_array_equal(found, np.where(same, 3, VOID))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_map_is_turned_as_its_image_is_or_refused(tmp_path, orientation):
    upright = turn(LABELS, orientation)
    raw = save(tmp_path / "raw.png", LABELS)
    ready = save(tmp_path / "ready.png", upright)
    own = save(tmp_path / "own.png", LABELS, **exif(orientation))
    own_tiff = save(tmp_path / "own.tif", LABELS, **exif(orientation))
    labels = read_numbers(ALL)
    for file in (own, own_tiff):
        np.testing.assert_array_equal(labels(file, upright.shape, orientation), upright)
    if orientation < 5:
        for file in (raw, ready):
            said = refused(labels, file, upright.shape, orientation)
            assert f"EXIF (orientation {orientation})" in said
    else:
        for file in (raw, ready):  # the sides tell which it is
            np.testing.assert_array_equal(labels(file, upright.shape, orientation), upright)
        square = save(tmp_path / "square.png", LABELS[:, :8])
        assert "EXIF" in refused(labels, square, (8, 8), orientation)


def test_a_turned_image_beside_a_raw_map_in_a_data_set(tmp_path):
    root = tmp_path / "pairs"
    for split in ("train", "test"):
        for i in range(3):
            grey = np.repeat(LABELS[..., None] * 40, 3, axis=-1)
            save(root / split / "images" / f"{i}.png", grey, **exif(6))
            save(root / split / "labels" / f"{i}.png", LABELS)
    (root / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    dataset = load_dataset("segmentation_folder", directory=root, resolution=8)
    assert dataset.skipped == ()
    example = dataset.test[0]
    shown = example["frames"][np.array([0])][0]
    assert shown.shape == (12, 8, 3)
    np.testing.assert_array_equal(shown[..., 0], 40 * example["label"])


def test_a_png_file_that_was_written_in_part_is_refused(tmp_path):
    file = save(tmp_path / "a.png", Image.fromarray(noise(8, 12, 3)).resize((300, 200)))
    content = file.read_bytes()
    read_image(file, 8)
    file.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    assert refused(read_image, file, 8).startswith("cannot be decoded: ")
