"""Pictures and label maps of each kind in each format, and the table of what becomes of them.

`python tests/data/pictures.py` prints the table of `jaxmoe/data/README.md`; `pictures_test.py`
checks it. Each cell is a file that is made here, in memory, and read as a user's would be: `right`
has the pixels, or the class numbers, that were put in; `refused` is left out by name; `WRONG` must
not be.
"""

import io
import pathlib
import struct
import tempfile
import zlib

import numpy as np
from PIL import Image

from jaxmoe.data.decoding.still import read_image
from jaxmoe.data.decoding.unusable import UnusableClipError
from jaxmoe.data.listing.label_maps import read_numbers

FORMATS = {
    **{"PNG": "PNG", "TIFF": "TIFF", "JPEG": "JPEG", "WebP": "WEBP"},
    **{"BMP": "BMP", "GIF": "GIF", "PNM": "PPM", "JPEG 2000": "JPEG2000"},
}
_LOSSY = ("JPEG", "WEBP")
_HEIGHT, _WIDTH = 8, 12

# Smooth, for JPEG; the map has the numbers 0 and 1 alone, for 1 bit.
COLOURS = np.stack(
    np.broadcast_arrays(
        np.linspace(40, 230, _WIDTH)[None], np.linspace(60, 200, _HEIGHT)[:, None], 90.0
    ),
    axis=-1,
).astype(np.uint8)
GREY = COLOURS[..., 0]
NUMBERS = np.repeat(np.arange(_WIDTH)[None] // 4 % 2, _HEIGHT, axis=0).astype(np.uint8)
_ALPHA = np.repeat(np.where(np.arange(_HEIGHT) < 4, 255, 0)[:, None], _WIDTH, axis=1)
_ALPHA = _ALPHA.astype(np.uint8)


def pictures() -> dict[str, tuple[np.ndarray, dict[str, bytes]]]:
    """Returns by kind what a picture shows, RGB `uint8[8, 12, 3]`, and a file in each format."""
    bits = np.where(NUMBERS, np.uint8(255), np.uint8(0))
    colours, grey = Image.fromarray(COLOURS), Image.fromarray(GREY)
    with_dual_weight = Image.fromarray(np.dstack([COLOURS, _ALPHA]))
    grey_alpha = Image.merge("LA", [grey, Image.fromarray(_ALPHA)])
    indices, key = _palette(GREY), int(GREY[0, 3])
    many = {"save_all": True, "append_images": [colours.rotate(180)]}
    words = GREY.astype(np.uint16) * 257
    deep = COLOURS.astype(np.uint16) * 257
    cut = np.where(_ALPHA[..., None] > 0, COLOURS, 0)
    half = np.where(_ALPHA > 0, GREY, 0)
    return {
        "1 bit": (
            _rgb(bits),
            _saved(Image.fromarray(bits > 0), "PNG TIFF JPEG BMP GIF PPM"),
        ),
        "grey, 4 bits": (
            _rgb(NUMBERS * 51),
            {"PNG": _png(NUMBERS * 3, 4, 0), "PPM": _pgm(NUMBERS * 3, 15)},
        ),
        "grey": (_rgb(GREY), _saved(grey, "PNG TIFF JPEG WEBP BMP GIF PPM JPEG2000")),
        "grey, one transparent": (
            _rgb(np.where(key == GREY, 0, GREY)),
            _saved(grey, "PNG GIF", transparency=key),
        ),
        "grey and alpha": (_rgb(half), _saved(grey_alpha, "PNG TIFF JPEG2000")),
        "palette": (_rgb(GREY), _saved(indices, "PNG TIFF BMP GIF")),
        "palette, one transparent": (
            _rgb(np.where(key == GREY, 0, GREY)),
            _saved(indices, "PNG GIF", transparency=255 - key),
        ),
        "colours": (COLOURS, _saved(colours, "PNG TIFF JPEG WEBP BMP PPM JPEG2000")),
        "colours, one transparent": (
            np.where((COLOURS[2, 3] == COLOURS).all(-1, keepdims=True), 0, COLOURS),
            _saved(colours, "PNG", transparency=tuple(COLOURS[2, 3].tolist())),
        ),
        "colours and alpha": (
            cut,
            _saved(with_dual_weight, "PNG TIFF WEBP JPEG2000", lossless=True),
        ),
        "wholly transparent": (
            COLOURS,
            _saved(Image.fromarray(np.dstack([COLOURS, 0 * GREY])), "PNG TIFF", lossless=True),
        ),
        "colours, 16 bits": (
            COLOURS,
            {"PNG": _png(deep, 16, 2), "PPM": b"P6 12 8 65535\n" + deep.astype(">u2").tobytes()},
        ),
        "grey, 16 bits": (
            _rgb(GREY),
            {**_saved(Image.fromarray(words), "PNG TIFF JPEG2000"), "PPM": _pgm(words, 65535)},
        ),
        "grey, 12 bits of 16": (_rgb(GREY), _saved(Image.fromarray(words >> 4), "PNG TIFF")),
        "grey, white is 0": (
            _rgb(GREY),
            {"TIFF": _tiff(65535 - words, photometric=0)},
        ),
        "32-bit numbers": (_rgb(GREY), _saved(Image.fromarray(words.astype(np.int32)), "TIFF")),
        "fractions": (_rgb(GREY), _saved(Image.fromarray(GREY / np.float32(255)), "TIFF PPM")),
        "CMYK": (COLOURS, _saved(colours.convert("CMYK"), "TIFF JPEG")),
        "YCbCr": (COLOURS, _saved(colours.convert("YCbCr"), "TIFF JPEG")),
        "CIELAB": (COLOURS, _saved(Image.merge("LAB", colours.split()), "TIFF")),
        "several pictures": (COLOURS, _saved(colours, "PNG TIFF WEBP GIF", **many)),
        "turned by EXIF": (
            np.rot90(COLOURS, -1),
            _saved(colours, "PNG TIFF JPEG WEBP", exif=_exif(6)),
        ),
    }


def label_maps() -> dict[str, dict[str, bytes]]:
    """Returns by kind a label map of `NUMBERS` in each format."""
    grey = Image.fromarray(NUMBERS)
    opaque = Image.fromarray(np.full_like(NUMBERS, 255))
    words = NUMBERS.astype(np.uint16)
    many = {"save_all": True, "append_images": [Image.fromarray(1 - NUMBERS)]}
    return {
        "1 bit": _saved(Image.fromarray(NUMBERS > 0), "PNG TIFF JPEG BMP PPM"),
        "grey, 4 bits": {"PNG": _png(NUMBERS, 4, 0), "PPM": _pgm(NUMBERS, 15)},
        "grey": _saved(grey, "PNG TIFF JPEG WEBP BMP GIF PPM JPEG2000"),
        "grey, one transparent": _saved(grey, "PNG", transparency=0),
        "grey and alpha": _saved(Image.merge("LA", [grey, Image.fromarray(_ALPHA)]), "PNG TIFF"),
        "grey and alpha, opaque": _saved(Image.merge("LA", [grey, opaque]), "PNG TIFF"),
        "palette": _saved(_palette(255 - NUMBERS), "PNG TIFF BMP GIF"),
        "palette, one transparent": _saved(_palette(255 - NUMBERS), "PNG GIF", transparency=0),
        "colours": _saved(grey.convert("RGB"), "PNG TIFF WEBP BMP PPM"),
        "grey, 16 bits": {
            **_saved(Image.fromarray(words), "PNG TIFF JPEG2000"),
            "PPM": _pgm(words, 65535),
        },
        "grey, white is 0": {"TIFF": _tiff(words, photometric=0)},
        "32-bit numbers": _saved(Image.fromarray(words.astype(np.int32)), "TIFF"),
        "fractions": _saved(Image.fromarray(NUMBERS.astype(np.float32)), "TIFF PPM"),
        "several pictures": _saved(grey, "TIFF GIF", **many),
        "turned by EXIF": _saved(
            Image.fromarray(np.ascontiguousarray(np.rot90(NUMBERS))), "PNG TIFF", exif=_exif(6)
        ),
    }


def verdict(content: bytes, shown: np.ndarray | None, tolerance: int) -> str:
    """Returns `right`, `refused` or `WRONG` of a picture, or of a label map where `shown` is None.

    Args:
      content: of the file.
      shown: what the picture shows, RGB.
      tolerance: how far each value may be off, of 255.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "file"
        file.write_bytes(content)
        try:
            if shown is None:
                read = read_numbers({0: 0, 1: 1})
                found, expected = read(file, NUMBERS.shape, 1), NUMBERS
            else:
                found, expected = read_image(file, min(shown.shape[:2])), shown
        except UnusableClipError:
            return "refused"
    if found.shape != expected.shape:
        return "WRONG"
    off = np.abs(found.astype(int) - expected.astype(int)).max()
    return "right" if off <= tolerance else "WRONG"


def table() -> str:
    """Returns the table: a row for each kind, a column for each format, `picture / label map`."""
    shown, maps = pictures(), label_maps()
    lines = [f"| picture / label map | {' | '.join(FORMATS)} |", "|---" * (len(FORMATS) + 1) + "|"]
    for kind in [*shown, *(kind for kind in maps if kind not in shown)]:
        expected, files = shown.get(kind, (None, {}))
        cells = [
            " / ".join(
                (
                    verdict(files[name], expected, 12 if name in _LOSSY else 3)
                    if name in files
                    else "–",
                    verdict(maps[kind][name], None, 0) if name in maps.get(kind, {}) else "–",
                )
            )
            for name in FORMATS.values()
        ]
        lines.append(f"| {kind} | {' | '.join('' if c == '– / –' else c for c in cells)} |")
    return "\n".join(lines)


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def _saved(image: Image.Image, names: str, **options) -> dict[str, bytes]:
    files = {}
    for name in names.split():
        stream = io.BytesIO()
        fine = {"quality": 95, "subsampling": 0} if name == "JPEG" else {}
        image.save(stream, name, **fine, **options)
        files[name] = stream.getvalue()
    return files


def _palette(grey: np.ndarray) -> Image.Image:
    """Shows these greys by places in a palette that are other numbers: 255 − grey."""
    image = Image.fromarray(255 - grey).copy()
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(np.repeat(255 - np.arange(256), 3).astype(np.uint8).tobytes())
    return image


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _pgm(values: np.ndarray, white: int) -> bytes:
    kind = ">u2" if white > 255 else np.uint8
    return f"P5 {_WIDTH} {_HEIGHT} {white}\n".encode() + values.astype(kind).tobytes()


def _png(values: np.ndarray, bits: int, colour_type: int) -> bytes:
    """What Pillow does not write: 4 bits a pixel, or 16 a channel."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    packed = (values[:, ::2] << 4 | values[:, 1::2]).astype(np.uint8)
    rows = packed if bits == 4 else values.astype(">u2")
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", _WIDTH, _HEIGHT, bits, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _tiff(values: np.ndarray, photometric: int) -> bytes:
    """16-bit greys that are uncompressed, with the tag that says what is white."""
    content = values.astype("<u2").tobytes()
    tags = {256: _WIDTH, 257: _HEIGHT, 258: 16, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: _HEIGHT, 279: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    start = b"II*\0" + struct.pack("<I", 8 + len(content)) + content
    return start + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


if __name__ == "__main__":
    print(table())
