"""Films in every container and condition, and the table of what becomes of them.

`python tests/data/containers.py` makes them in a temporary folder, reads them, and prints the table
of `jaxmoe/data/README.md`; `containers_test.py` checks each of its cells.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

from jaxmoe.data.decoding.decode import UnreadableVideoError, decode_frames

FRAMES, RATE, WIDTH, HEIGHT = 24, 10, 96, 64
_SOUND_RATE = 48_000
_SECOND_HALF = FRAMES // 2
# The first half at the rate, each frame of the second half held for five frames' time.
_UNEVEN = [*range(_SECOND_HALF), *(_SECOND_HALF + 5 * i for i in range(FRAMES - _SECOND_HALF))]
_MIRRORED = (-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_ROTATED = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # a quarter turn clockwise


@dataclasses.dataclass(frozen=True)
class Container:
    """One kind of file.

    Attributes:
      name: the ending of its files.
      format: FFmpeg's name for it.
      codec: of the film.
      lacks: conditions that it cannot hold, or that nothing here can write.
      sound: codec of a sound track; none if it has no sound.
      pixels: format of the codec's pixels.
    """

    name: str
    format: str
    codec: str
    lacks: str = ""
    sound: str = ""
    pixels: str = "yuv420p"


_NO_ORIENTATION = "edit list, rotated, mirrored"
CONTAINERS = (
    Container("mp4", "mp4", "mpeg4", sound="aac"),
    Container("mov", "mov", "mpeg4", sound="aac"),
    Container("mkv", "matroska", "mpeg4", "edit list", sound="aac"),
    Container("webm", "webm", "libvpx", "edit list, first a picture", sound="libopus"),
    Container("avi", "avi", "mpeg4", _NO_ORIENTATION, sound="mp2"),
    Container("ts", "mpegts", "mpeg2video", f"{_NO_ORIENTATION}, first a picture", sound="mp2"),
    Container(
        *("mpg", "mpeg", "mpeg2video", f"{_NO_ORIENTATION}, first a picture, variable rate"),
        sound="mp2",
    ),
    Container("flv", "flv", "flv", f"{_NO_ORIENTATION}, first a picture, non-square, two films"),
    Container(
        *("ogv", "ogv", "libvpx"),
        f"{_NO_ORIENTATION}, first a picture, non-square, variable rate",
        sound="libopus",
    ),
    Container("wmv", "asf", "wmv2", f"{_NO_ORIENTATION}, first a picture", sound="wmav2"),
    Container(
        *("gif", "gif", "gif", f"{_NO_ORIENTATION}, first a picture, two films"), pixels="rgb8"
    ),
    Container(
        *("apng", "apng", "apng", f"{_NO_ORIENTATION}, first a picture, two films"),
        pixels="rgb24",
    ),
    Container(
        *("h264", "h264", "libx264"),
        f"{_NO_ORIENTATION}, first a picture, two films, variable rate, cut",
    ),
)
CONDITIONS = (
    *("whole", "cut", "edit list", "variable rate", "rotated", "mirrored"),
    *("non-square", "first a picture", "no sound", "two films"),
)


@dataclasses.dataclass(frozen=True)
class Film:
    """A file, and what a player shows of it.

    Attributes:
      file: the file.
      shown: numbers of the frames.
      stamps: when each begins, in frames' times; None for one after the other.
      dark_corner: where the dark quarter is, `(down, across)`, 0 or 1 each.
      shape: height and width of a frame whose shorter side is 32.
      refused: why it is refused; empty if it is not.
    """

    file: pathlib.Path
    shown: Sequence[int] = range(FRAMES)
    stamps: Sequence[int] | None = None
    dark_corner: tuple[int, int] = (0, 0)
    shape: tuple[int, int] = (32, 48)
    refused: str = ""


def picture(number: int, level: int = 60) -> np.ndarray:
    """The frame of a number: grey, the brighter the later, its top left quarter black."""
    image = np.full((HEIGHT, WIDTH, 3), level + 8 * number, np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = 0
    return image


def make_films(container: Container, condition: str, folder: pathlib.Path) -> list[Film]:
    """Writes the films of one cell of the table; none where the container cannot hold it."""
    if condition in container.lacks:
        return []
    file = folder / f"{condition.replace(' ', '_')}.{container.name}"
    plain = Film(file)
    match condition:
        case "cut":
            return cut(container, folder)
        case "edit list":
            whole = folder / f"uncut.{container.name}"
            _write(container, whole)
            _copy_from(whole, file, container, _SECOND_HALF)
            return [dataclasses.replace(plain, shown=range(_SECOND_HALF, FRAMES))]
        case "variable rate":
            _write(container, file, stamps=_UNEVEN)
            return [dataclasses.replace(plain, stamps=_UNEVEN)]
        case "rotated":
            _write(container, file, matrix=_ROTATED)
            return [dataclasses.replace(plain, dark_corner=(0, 1), shape=(48, 32))]
        case "mirrored":
            _write(container, file, matrix=_MIRRORED)
            return [dataclasses.replace(plain, dark_corner=(0, 1))]
        case "non-square":
            # MPEG-2 knows three shapes of picture, one of them 16:9.
            pixel = Fraction(32, 27) if container.codec == "mpeg2video" else Fraction(4, 3)
            if container.name == "webm":
                _write(container, file, matrix=_ROTATED)
                _show_at_width(file, round(WIDTH * pixel))
            else:
                _write(container, file, pixel=pixel)
            return [dataclasses.replace(plain, shape=(32, round(48 * pixel)))]
        case "first a picture":
            _write(container, file, before="picture")
        case "two films":
            _write(container, file, before="film")
        case _:
            _write(container, file, sound=condition == "whole")
    return [plain]


def cut(
    container: Container, folder: pathlib.Path, percents: Sequence[int] = (30, 60, 80)
) -> list[Film]:
    """A film without its end: files of so many percent of its bytes."""
    whole = folder / f"whole.{container.name}"
    # An MP4 that has its index in front would play up to the cut.
    boxes = container.format in ("mp4", "mov")
    _write(container, whole, options={"movflags": "faststart"} if boxes else None)
    data = whole.read_bytes()
    films = []
    for percent in percents:
        file = folder / f"{percent}.{container.name}"
        length = len(data) * percent // 100
        # Whole packets of a transport stream are a whole one.
        file.write_bytes(data[: length - (length % 188 == 0)])
        films.append(Film(file, refused="cut off|cannot be decoded"))
    return films


def _write(
    container: Container,
    file: pathlib.Path,
    *,
    stamps: Sequence[int] | None = None,
    matrix: Sequence[int] | None = None,
    pixel: Fraction | None = None,
    before: str = "",
    sound: bool = False,
    options: dict[str, str] | None = None,
) -> None:
    with av.open(str(file), "w", format=container.format, options=options or {}) as out:
        first = _picture_stream(out) if before == "picture" else None
        small = _film_stream(out, container, WIDTH // 2, HEIGHT // 2) if before == "film" else None
        film = _film_stream(out, container, WIDTH, HEIGHT)
        if matrix:
            film.set_display_matrix(matrix)
        if pixel:
            film.codec_context.sample_aspect_ratio = pixel
        if small:
            film.disposition = Disposition.default
        track = _sound_stream(out, container) if sound and container.sound else None
        if first:
            out.start_encoding()
            out.mux(_jpeg_packet(first))
        for number in range(FRAMES):
            stamp = stamps[number] if stamps else number
            out.mux(film.encode(_frame(picture(number), stamp, container)))
            if small:
                half = picture(0, level=255)[::2, ::2]
                out.mux(small.encode(_frame(half, stamp, container)))
        for stream in filter(None, (film, small)):
            out.mux(stream.encode())
        if track:
            _fill(out, track)


def _film_stream(out, container: Container, width: int, height: int):
    stream = out.add_stream(container.codec, rate=RATE)
    stream.width, stream.height, stream.pix_fmt = width, height, container.pixels
    stream.codec_context.time_base = Fraction(1, RATE)
    if container.codec not in ("gif", "apng", "libx264"):
        stream.codec_context.bit_rate = 2_000_000
    return stream


def _sound_stream(out, container: Container):
    track = out.add_stream(container.sound, rate=_SOUND_RATE)
    track.codec_context.bit_rate = 64_000
    return track


def _frame(image: np.ndarray, stamp: int, container: Container) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame.pts, frame.time_base = stamp, Fraction(1, RATE)
    return frame.reformat(format=container.pixels)


def _picture_stream(out):
    stream = out.add_stream("mjpeg", rate=RATE)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
    return stream


def _jpeg_packet(stream) -> av.Packet:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
    encoder.time_base = Fraction(1, RATE)
    frame = av.VideoFrame.from_ndarray(picture(0, level=255), format="rgb24")
    packet = encoder.encode(frame.reformat(format="yuvj420p", dst_color_range="JPEG"))[0]
    packet.stream, packet.pts, packet.dts = stream, 0, 0
    packet.time_base = Fraction(1, RATE)
    return packet


def _fill(out, track) -> None:
    """A second of silence more than the film has."""
    context = track.codec_context
    size = context.frame_size or 1024
    for start in range(0, (FRAMES // RATE + 2) * _SOUND_RATE, size):
        silence = av.AudioFrame(format=context.format.name, layout=context.layout, samples=size)
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        silence.sample_rate, silence.pts = context.sample_rate, start
        silence.time_base = Fraction(1, context.sample_rate)
        out.mux(track.encode(silence))
    out.mux(track.encode())


def _show_at_width(file: pathlib.Path, width: int) -> None:
    """Puts Matroska's DisplayWidth where a projection stands: FFmpeg does not write it to WebM."""
    data = bytearray(file.read_bytes())
    start = data.index(b"\x76\x70")
    length = 3 + (data[start + 2] & 0x7F)
    shown = b"\x54\xb0\x81" + bytes([width])
    rest = length - len(shown) - 2
    data[start : start + length] = shown + b"\xec" + bytes([0x80 | rest]) + bytes(rest)
    file.write_bytes(data)


def _copy_from(whole: pathlib.Path, file: pathlib.Path, container: Container, first: int) -> None:
    """Copies a film from a frame on, without encoding: an edit list hides what is before."""
    options = {"avoid_negative_ts": "disabled"}
    with (
        av.open(str(whole)) as source,
        av.open(str(file), "w", format=container.format, options=options) as out,
    ):
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        shift = round(Fraction(first, RATE) / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                out.mux(packet)


def differences(film: Film) -> list[str]:
    """Returns what is not as a player shows it; nothing if all is right."""
    frames: list[np.ndarray] = []
    try:
        times = decode_frames(film.file, 32, frames.append)
    except UnreadableVideoError as error:
        return [f"refused: {error}"]
    wrong = []
    if len(frames) != len(film.shown):
        return [f"{len(frames)} frames for {len(film.shown)}"]
    if frames[0].shape[:2] != film.shape:
        return [f"a shape of {frames[0].shape[:2]} for {film.shape}"]
    clip = np.stack(frames).astype(float)
    down, across = film.dark_corner
    height, width = film.shape
    # Well inside the quarters: encoders blur their edges.
    rows, columns = (slice(4, height // 2 - 4), slice(4, width // 2 - 4))
    if clip[:, :: 1 - 2 * down, :: 1 - 2 * across][:, rows, columns].max() > 40:
        wrong.append("the dark quarter is elsewhere")
    bright = clip[:, :: 2 * down - 1, :: 2 * across - 1][:, rows, columns].mean((1, 2, 3))
    expected = 60 + 8 * np.array(film.shown)
    # A GIF has few greys.
    allowed = 30 if film.file.suffix == ".gif" else 6
    if abs(bright - expected).max() > allowed:
        wrong.append("other frames")
    if film.stamps is None and times is not None:
        wrong.append("an uneven rate")
    if film.stamps is not None:
        stamps = np.array(film.stamps) * 1_000_000 // RATE
        if times is None or abs(times[:-1] - stamps).max() > 20_000:
            wrong.append("other times")
    return wrong


def table(cells: dict[tuple[str, str], str]) -> str:
    """Returns the table in Markdown, a row for each container."""
    lines = [f"| | {' | '.join(CONDITIONS)} |", "|---" * (len(CONDITIONS) + 1) + "|"]
    for container in CONTAINERS:
        row = [cells[container.name, condition] for condition in CONDITIONS]
        lines.append(f"| {container.name} | {' | '.join(row)} |")
    return "\n".join(lines)


def cell(container: Container, condition: str, folder: pathlib.Path) -> str:
    """Returns what becomes of one cell's films: `✓`, `refused`, `–` if there are none."""
    films = make_films(container, condition, folder)
    found = [differences(film) for film in films]
    if not films:
        return "–"
    if not any(found):
        return "✓"
    reasons = [reason for reasons in found for reason in reasons]
    if len(reasons) == len(films) and all(reason.startswith("refused") for reason in reasons):
        return "refused"
    return "; ".join(reasons)


def expected_table() -> str:
    """Returns the table as it should be, without making a film."""
    cells = {}
    for container in CONTAINERS:
        for condition in CONDITIONS:
            read = "refused" if condition == "cut" else "✓"
            cells[container.name, condition] = "–" if condition in container.lacks else read
    return table(cells)


def main() -> None:
    """Prints the table."""
    cells = {}
    with tempfile.TemporaryDirectory() as folder:
        for container in CONTAINERS:
            for condition in CONDITIONS:
                place = pathlib.Path(folder) / container.name
                place.mkdir(exist_ok=True)
                cells[container.name, condition] = cell(container, condition, place)
    print(table(cells))


if __name__ == "__main__":
    main()
