"""Pictures of films: upright in all eight ways, with square pixels, in the right colours."""

import itertools
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from jaxmoe.data.decoding.decode import UnreadableVideoError, decode_video
from jaxmoe.data.decoding.film_picture import orientation

ONE = 1 << 16
AXES = [
    *((a, 0, 0, d) for a, d in itertools.product((-1, 1), repeat=2)),
    *((0, b, c, 0) for b, c in itertools.product((-1, 1), repeat=2)),
]


def matrix(a: float, b: float, c: float, d: float) -> bytes:
    fixed = [round(value * ONE) for value in (a, b, c, d)]
    return struct.pack("=9i", fixed[0], fixed[1], 0, fixed[2], fixed[3], 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("scale", [(1, 1), (2, 2), (3, 0.5)], ids=str)
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_every_point_goes_where_the_matrix_puts_it(axes, scale):
    picture = np.arange(6).reshape(2, 3)
    a, b, c, d = axes
    wide, high = scale
    turned = orientation(matrix(a * wide, b * wide, c * high, d * high)).apply(picture)
    # Points around the middle, moved by the definition of ISO/IEC 14496-12 section 8.3.2.
    for y, x in np.ndindex(2, 3):
        right, down = x - 1, y - 0.5
        to_right, to_down = a * right + c * down, b * right + d * down
        height, width = turned.shape
        assert (
            turned[int(to_down + (height - 1) / 2), int(to_right + (width - 1) / 2)]
            == (picture[y, x])
        )


@pytest.mark.parametrize("given", [None, matrix(0, 0, 0, 0), matrix(1, 0, 1, 0)], ids=str)
def test_a_matrix_without_area_is_none(given):
    picture = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(orientation(given).apply(picture), picture)


@pytest.mark.parametrize(
    "axes", [(0.7, 0.7, -0.7, 0.7), (0.98, 0.17, -0.17, 0.98), (1, 0, 0.5, 1)], ids=str
)
def test_what_is_no_quarter_turn_is_refused(axes):
    with pytest.raises(UnreadableVideoError, match="accepted are quarter turns and mirror images"):
        orientation(matrix(*axes))


def write(file, images, codec, pixels, form="rgb24", pixel=None, **colour):
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = images[0].shape[1], images[0].shape[0], pixels
        for name, value in colour.items():
            setattr(stream.codec_context, name, value)
        if pixel:
            stream.codec_context.sample_aspect_ratio = pixel
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format=form)
            full = {"dst_color_range": "JPEG"} if colour.get("color_range") == 2 else {}
            container.mux(stream.encode(frame.reformat(format=pixels, **full)))
        container.mux(stream.encode())
    return file


GREY = np.full((32, 48, 3), 200, np.uint8)


def test_the_containers_word_on_pixels_counts_before_the_codecs(tmp_path):
    file = write(tmp_path / "v.mp4", [GREY] * 2, "mpeg4", "yuv420p", pixel=Fraction(2))
    assert decode_video(file, 16).shape == (2, 16, 48, 3)
    data = file.read_bytes()
    box = b"pasp" + struct.pack(">2I", 2, 1)
    assert data.count(box) == 1
    file.write_bytes(data.replace(box, b"pasp" + struct.pack(">2I", 1, 2)))
    assert decode_video(file, 16).shape == (2, 21, 16, 3)  # 24 × 32


def test_pixels_of_an_impossible_shape_are_refused(tmp_path):
    file = write(tmp_path / "v.mp4", [GREY] * 2, "mpeg4", "yuv420p", pixel=Fraction(12))
    with pytest.raises(UnreadableVideoError, match="pixels are 12 times as wide as high"):
        decode_video(file, 16)


def joined(tmp_path, *parts):
    """A stream whose parts are encoded each by itself, as recorders write on after a change."""
    files = [
        write(tmp_path / f"{i}.ts", [np.full((h, w, 3), 200, np.uint8)] * 4, "mpeg2video",
              "yuv420p", pixel=pixel)
        for i, (w, h, pixel) in enumerate(parts)
    ]  # fmt: skip
    file = tmp_path / "joined.ts"
    file.write_bytes(b"".join(part.read_bytes() for part in files))
    return file


def test_a_picture_that_changes_its_size_alone_stays_one_film(tmp_path):
    frames = decode_video(joined(tmp_path, (96, 64, None), (48, 32, None)), 32)
    assert len(frames) >= 7  # the last picture of a part has no end, for the parser
    assert frames.shape[1:] == (32, 48, 3)
    assert abs(frames.astype(int) - 200).max() < 8


@pytest.mark.parametrize(
    "second", [(64, 96, None), (96, 64, Fraction(32, 27))], ids=["upright", "wider pixels"]
)
def test_a_picture_that_changes_its_shape_is_refused(tmp_path, second):
    with pytest.raises(UnreadableVideoError, match="changes shape, from 48 × 32 to"):
        decode_video(joined(tmp_path, (96, 64, None), second), 32)


def test_colour_under_transparency_does_not_show(tmp_path):
    image = np.full((32, 48, 4), 255, np.uint8)
    image[:, 24:, 3] = 0
    image[16:, :24, 3] = 128
    file = write(tmp_path / "v.mov", [image] * 2, "qtrle", "argb", form="rgba")
    frames = decode_video(file, 32).astype(int)
    assert frames[:, :14, :20].min() == 255
    assert frames[:, :, 28:].max() == 0
    assert abs(frames[:, 18:, :20] - 128).max() <= 1


@pytest.mark.parametrize(
    ("codec", "pixels", "colour"),
    [
        ("ffv1", "yuv420p", {}),
        ("ffv1", "gray", {}),
        ("ffv1", "gray10le", {}),
        ("ffv1", "gray16le", {}),
        ("ffv1", "yuv444p10le", {}),
        ("ffv1", "yuv420p", {"color_range": 2}),
        ("png", "rgb24", {}),
        ("mjpeg", "yuvj420p", {"color_range": 2}),
    ],
)
def test_any_depth_and_range_becomes_the_same_grey(tmp_path, codec, pixels, colour):
    file = tmp_path / ("v.mov" if codec == "png" else "v.mkv")
    write(file, [GREY] * 2, codec, pixels, **colour)
    assert abs(decode_video(file, 32).astype(int) - 200).max() <= 2


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused(tmp_path, transfer, name):
    file = write(tmp_path / "v.mkv", [GREY] * 2, "ffv1", "yuv420p10le", color_trc=transfer)
    with pytest.raises(UnreadableVideoError, match=f"high dynamic range .{name}."):
        decode_video(file, 32)


def test_woven_fields_stay_whole_frames(tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    image[::2] = 240  # the other field is dark
    file = tmp_path / "interlaced.mkv"
    write(file, [image] * 3, "ffv1", "yuv444p", field_order=2)
    frames = decode_video(file, 64)
    assert frames.shape[0] == 3
    assert abs(frames[:, ::2].astype(int) - 240).max() <= 3
    assert frames[:, 1::2].max() <= 3
