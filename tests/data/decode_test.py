"""Decoding: any container, upright, antialiased, and every defect by name."""

import io
import struct
import tracemalloc

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from jaxmoe.data.decoding.decode import UnreadableVideoError, decode_frames, decode_video


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("clip.avi", "mpeg4"),
        ("clip.mp4", "mpeg4"),
        ("clip.mkv", "mpeg4"),
        ("clip.webm", "libvpx"),
        ("clip.gif", "gif"),
        ("a b!+[1](2)%20 é日本.avi", "mpeg4"),
        ("-dash #1?&.mp4", "mpeg4"),
    ],
)
def test_containers_and_odd_names_give_frames_in_order(tmp_path, write_video, name, codec):
    frames = decode_video(write_video(tmp_path / name, frames=6, codec=codec), 16)
    assert frames.shape == (6, 16, 24, 3)
    assert frames.dtype == np.uint8
    brightness = frames.mean((1, 2, 3))
    # A GIF has a palette of few greys.
    np.testing.assert_allclose(brightness, 20 + 10 * np.arange(6), atol=25 if codec == "gif" else 4)


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(64, 32, (16, 32)), (32, 64, (32, 16)), (40, 40, (16, 16))]
)
def test_shorter_side_is_resolution_and_aspect_stays(
    tmp_path, write_video, width, height, expected
):
    frames = decode_video(write_video(tmp_path / "v.avi", width=width, height=height), 16)
    assert frames.shape[1:3] == expected


def test_resizing_averages_instead_of_skipping_pixels(tmp_path):
    file = tmp_path / "checkerboard.mkv"
    board = np.indices((128, 128)).sum(0) % 2 * 255
    image = np.repeat(board[..., None], 3, 2).astype(np.uint8)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv444p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    frame = decode_video(file, 16)[0].astype(int)
    assert abs(frame - 127).max() < 20


def test_a_video_filmed_sideways_is_turned_upright(tmp_path):
    file = tmp_path / "phone.mp4"
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :32] = 250  # bright on the left
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    # ISO 14496-12: a 3×3 matrix in the track header; this one is a quarter turn clockwise.
    data = file.read_bytes()
    start = data.index(struct.pack(">9i", *_IDENTITY), data.index(b"tkhd"))
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    file.write_bytes(data[:start] + turned + data[start + len(turned) :])
    frame = decode_video(file, 16)[0]
    assert frame.shape == (32, 16, 3)
    assert frame[:12].mean() > 200  # what was left is on top
    assert frame[20:].mean() < 50


_IDENTITY = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def test_a_real_clip_matches_an_independent_resize(real_data):
    file = real_data / "clips" / "ucf101" / "v_LongJump_g01_c04.avi"
    frames = decode_video(file, 60)
    with av.open(str(file)) as container:
        full = [frame.to_image() for frame in container.decode(video=0)]
    assert frames.shape == (len(full), 60, 80, 3)
    for t in (0, len(full) - 1):
        reference = np.asarray(full[t].resize((80, 60), Image.Resampling.BICUBIC), np.float32)
        assert np.abs(frames[t] - reference).mean() < 3


def test_frames_are_held_once(tmp_path, write_video):
    file = write_video(tmp_path / "long.avi", frames=400)
    tracemalloc.start()
    frames = decode_video(file, 48)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frames.shape == (400, 48, 72, 3)
    assert held < 1.1 * frames.nbytes
    assert most < 1.4 * frames.nbytes


def test_a_frame_is_given_away_before_the_next_is_decoded(tmp_path, write_video):
    file = write_video(tmp_path / "long.avi", frames=400)
    sizes = []
    tracemalloc.start()
    assert decode_frames(file, 48, lambda frame: sizes.append(frame.nbytes)) is None
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sizes) == 400
    assert most < 0.2 * sum(sizes)


def _headers(tmp_path, write_video, **changed):
    """A whole AVI whose header gives another count of frames."""
    file = write_video(tmp_path / "film.avi", frames=12)
    data = bytearray(file.read_bytes())
    place = data.index(b"strh") + 8 + 32
    assert struct.unpack_from("<I", data, place) == (12,)
    struct.pack_into("<I", data, place, changed["frames"])
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("frames", [1, 11, 40])
def test_a_wrong_count_in_a_header_refuses_no_film(tmp_path, write_video, frames):
    assert len(decode_video(_headers(tmp_path, write_video, frames=frames), 16)) == 12


class _Pipe(io.RawIOBase):
    """Takes bytes, and no seeking back."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += data
        return len(data)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *(("matroska", "mpeg4"), ("webm", "libvpx"), ("avi", "mpeg4"), ("flv", "flv")),
        *(("mpegts", "mpeg2video"), ("ogg", "libvpx"), ("mp4", "mpeg4"), ("asf", "wmv2")),
    ],
)
def test_a_recording_whose_header_was_never_completed(tmp_path, write_video, name, codec):
    pipe = _Pipe()
    options = {"movflags": "empty_moov"} if name == "mp4" else {}
    with av.open(pipe, "w", format=name, options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.gop_size = 5
        for t in range(30):
            image = np.full((32, 48, 3), 7 * t + 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    file = tmp_path / "recording"
    file.write_bytes(pipe.data)
    assert len(decode_video(file, 16)) == 30
    if name == "asf":
        return  # a broadcast's packets are padded to one length, its index is behind them
    file.write_bytes(pipe.data[: len(pipe.data) * 6 // 10])
    with pytest.raises(UnreadableVideoError, match=r"cut off|cannot be decoded"):
        decode_video(file, 16)


@pytest.mark.parametrize("name", ["picture.gif", "picture.apng"])
def test_a_still_image_in_a_container_of_films_is_named(tmp_path, name):
    file = tmp_path / name
    Image.fromarray(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)).save(
        file, "GIF" if name.endswith("gif") else "PNG"
    )
    with pytest.raises(UnreadableVideoError, match="a still image, not a video"):
        decode_video(file, 16)


def test_an_animated_webp_is_read_or_named(tmp_path):
    file = tmp_path / "moving.webp"
    pictures = [Image.new("RGB", (48, 64), (40 * i, 0, 0)) for i in range(4)]
    pictures[0].save(file, save_all=True, append_images=pictures[1:])
    refused, frames = "", np.zeros((0, 1, 1, 3))
    try:
        frames = decode_video(file, 16)
    except UnreadableVideoError as error:
        refused = str(error)  # FFmpeg before 8.1
    assert (
        refused.startswith("an animated WebP")
        or abs(frames[..., 0].mean((1, 2)) - [0, 40, 80, 120]).max() <= 4
    )


@pytest.mark.parametrize("attached", [True, False])
def test_a_picture_beside_sound_is_no_video(tmp_path, attached):
    file = tmp_path / "song.mkv"
    with av.open(str(file), "w") as container:
        cover = container.add_stream("mjpeg", rate=10)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        if attached:
            cover.disposition = Disposition.attached_pic
        sound = container.add_stream("pcm_s16le", rate=8000)
        image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
        container.mux(cover.encode(image.reformat(format="yuvj420p")))
        container.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
    with pytest.raises(UnreadableVideoError, match="picture"):
        decode_video(file, 16)


def _empty(file, _):
    file.write_bytes(b"")


def _noise(file, _):
    file.write_bytes(np.random.default_rng(0).bytes(5000))


def _text(file, _):
    file.write_text("this is no video\n" * 50)


def _still(file, _):
    Image.new("RGB", (32, 32)).save(file, "PNG")


def _sound(file, _):
    with av.open(str(file), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))


def _headless(file, write_video):
    data = write_video(file.with_suffix(".mp4"), frames=20).read_bytes()
    file.write_bytes(data[: len(data) // 2])  # an MP4 keeps its index at the end


def _cut_off(file, write_video):
    data = write_video(file.with_name("whole.avi"), frames=60, width=64, height=64).read_bytes()
    file.write_bytes(data[: 5000 + (len(data) - 5000) // 10])


def _missing(file, _):
    pass


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_empty, "empty"),
        (_noise, "cannot be decoded"),
        (_text, "cannot be decoded"),
        (_still, "still image"),
        (_sound, "no video stream"),
        (_headless, "cannot be decoded|no video stream"),
        (_cut_off, "cut off|cannot be decoded"),
        (_missing, "no such file"),
    ],
)
def test_a_defect_is_one_line(tmp_path, write_video, capfd, spoil, reason):
    file = tmp_path / "spoiled.avi"
    spoil(file, write_video)
    with pytest.raises(UnreadableVideoError, match=reason) as raised:
        decode_video(file, 16)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""  # FFmpeg writes past Python


@pytest.mark.parametrize("name", ["notes.txt", "clip.nfo"])
def test_text_beside_videos_is_no_video(tmp_path, name):
    # Long enough for FFmpeg, which would film the letters.
    file = tmp_path / name
    file.write_text("frame 12: two people shake hands\n" * 200)
    with pytest.raises(UnreadableVideoError, match="text, not a video"):
        decode_video(file, 16)
