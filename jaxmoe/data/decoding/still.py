"""Reads a picture file: its pixels as 8-bit RGB, or the numbers of a label map; else refused.

Pillow opens the file and says its mode. Each mode is read so that it cannot be silently wrong, by
one rule for all files: no picture is stretched to its own darkest and brightest pixel.
H = height, W = width
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from jaxmoe.data.decoding.picture import on_black, stored_size
from jaxmoe.data.decoding.unusable import UnusableClipError

# The only ones of several pictures that show one, the first.
_ONE_OF_SEVERAL = ("MPO", "PSD")
_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
# A picture without a value above is taken for one of 12 bits or fewer: shown, it would be dark.
_TWELVE_BITS = 4095
_WHITE_IS_ZERO = "a TIFF file whose white is 0; expected one whose black is"

_SUBFILE, _PHOTOMETRIC, _SAMPLE_FORMAT = 254, 262, 339  # tags of TIFF

# By EXIF orientation: what turns the stored picture upright.
_TURNS = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.swapaxes(pixels[::-1, ::-1], 0, 1),
    8: lambda pixels: np.rot90(pixels),
}


class _Header(NamedTuple):
    """A picture, as far as it is known before its pixels are decoded.

    Attributes:
      format: in Pillow's words, such as PNG.
      mode: of the decoded pixels, in Pillow's words.
      packing: of the stored ones, such as `L;4`: grey of 4 bits.
      most: of a PNM file: the value of white.
      tags: of a TIFF file, by number: those that say what its numbers mean.
      orientation: by EXIF; 1 is upright.
    """

    format: str
    mode: str
    packing: str
    most: int
    tags: dict
    orientation: int


def read_image(
    file: pathlib.Path, resolution: int, brightest: list[int] | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Returns a picture as RGB in 0–255, upright, the shorter side `resolution`.

    16 bits become 8 by their upper byte. What is transparent lies on black.

    Args:
      file: any that Pillow opens.
      resolution: in pixels, at least 1.
      brightest: gets the greatest of 16-bit greys, for whoever reads many.

    Raises:
      UnusableClipError: why it cannot be read, or not without a guess, in one line.
    """
    return read_turned(file, resolution, brightest)[0]


def read_turned(
    file: pathlib.Path, resolution: int, brightest: list[int] | None = None
) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
    """Returns what `read_image` does, and the EXIF orientation by which it was turned."""
    with _opened(file) as (image, header):
        shown = _shown(image, header, [] if brightest is None else brightest)
        upright = Image.fromarray(_turned(shown, header))
        size = stored_size(*upright.size, resolution)
        if upright.size != size:
            upright = upright.resize(size, Image.Resampling.BICUBIC)
        return np.asarray(upright), header.orientation


def turn(pixels: Shaped[np.ndarray, "h w *c"], orientation: int) -> Shaped[np.ndarray, "H W *c"]:
    """Returns pixels turned upright by an EXIF orientation, 1 to 8; any other is upright."""
    return np.ascontiguousarray(_TURNS.get(orientation, lambda same: same)(pixels))


def read_map(file: pathlib.Path) -> tuple[Int[np.ndarray, "H W"], int]:
    """Returns the numbers of a label map, and the EXIF orientation by which it was turned.

    Of a palette they are the places in it; of 1 bit 0 and 1.

    Raises:
      UnusableClipError: why there are none, in one line.
    """
    with _opened(file) as (image, header):
        _check_lossless(image, header)
        values = np.asarray(image)
        if header.mode in ("LA", "PA"):
            _check_opaque(values[..., -1])
            values = values[..., 0]
        if header.mode == "F" or values.ndim != 2:
            found = "fractions" if header.mode == "F" else f"colours ({header.mode})"
            if header.mode == "RGB" and not np.ptp(values, axis=-1).any():
                found = "three channels (RGB), all the same"
            raise UnusableClipError(f"has {found}; expected class numbers in one channel")
        numbers = _as_stored(values.astype(np.int64), header)
        return _turned(numbers, header), header.orientation


def read_colour_map(file: pathlib.Path) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
    """Returns the colours of a label map, and the EXIF orientation by which it was turned.

    Raises:
      UnusableClipError: why there are none, in one line.
    """
    with _opened(file) as (image, header):
        _check_lossless(image, header)
        if header.mode not in ("RGB", "RGBA", "P"):
            raise UnusableClipError(f"has numbers ({header.mode}); expected colours")
        colours = np.asarray(image.convert("RGBA"))
        _check_opaque(colours[..., 3])
        return _turned(colours[..., :3], header), header.orientation


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[tuple[Image.Image, _Header]]:
    if not file.is_file():
        raise UnusableClipError("no such file")
    try:
        # Not by its name: Pillow maps such a TIFF file, and then mixes up the rows of turned ones.
        with file.open("rb") as stream:
            _check_sums(stream)
            image = Image.open(stream)
            _check_single(image)
            yield image, _header(image)
    except UnusableClipError:
        raise
    except UnidentifiedImageError as error:
        raise UnusableClipError("cannot be decoded: no known kind of picture") from error
    # PIL's decoders raise what they like of a broken file.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableClipError(f"cannot be decoded: {reason}") from error


def _check_sums(stream: BinaryIO) -> None:
    """Refuses a PNG file whose checksums do not hold: decoded, it may be black from there on."""
    image = Image.open(stream)
    if image.format == "PNG":
        image.verify()
    stream.seek(0)


def _check_single(image: Image.Image) -> None:
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format in _ONE_OF_SEVERAL:
        return
    if image.format == "TIFF":
        for page in range(1, count):
            image.seek(page)
            if not image.tag_v2.get(_SUBFILE, 0) & 1:  # no smaller copy of the first
                break
        else:
            image.seek(0)
            return
    raise UnusableClipError(f"has {count} pictures ({image.format}); expected one")


def _header(image: Image.Image) -> _Header:
    arguments = image.tile[0].args if image.tile else ()
    arguments = (arguments,) if isinstance(arguments, str) else tuple(arguments or ())
    packing = next((part for part in arguments if isinstance(part, str)), "")
    numbers = [part for part in arguments if isinstance(part, int)]
    pnm = image.format == "PPM" and bool(numbers)
    tags = getattr(image, "tag_v2", {})
    turned = image.getexif().get(ExifTags.Base.Orientation)
    return _Header(
        format=image.format or "",
        mode=image.mode,
        packing=packing,
        most=numbers[-1] if pnm else 0,
        tags={number: tags[number] for number in (_PHOTOMETRIC, _SAMPLE_FORMAT) if number in tags},
        orientation=turned if turned in _TURNS else 1,
    )


def _shown(image: Image.Image, header: _Header, brightest: list[int]) -> UInt8[np.ndarray, "H W 3"]:
    """The picture as a viewer shows it."""
    mode = header.mode
    if header.tags.get(_SAMPLE_FORMAT, (1,))[0] == 2:
        raise UnusableClipError("has signed numbers, whose black nothing tells; expected unsigned")
    if mode.startswith("I;16") or (mode == "I" and header.format in ("PPM", "PNG")):
        return _of_sixteen_bits(image, header, brightest)
    if mode in ("I", "F"):
        kind = "32-bit numbers" if mode == "I" else "fractions"
        raise UnusableClipError(
            f"has {kind}, whose white nothing tells; expected 8 bits a channel, or 16"
        )
    if mode == "LAB":
        raise UnusableClipError("has CIELAB colours; expected RGB")
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    _mend_colour_key(image, header)
    premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(mode)
    picture = np.asarray((image.convert(premultiplied) if premultiplied else image).convert("RGBA"))
    return _on_black(picture)


def _of_sixteen_bits(
    image: Image.Image, header: _Header, brightest: list[int]
) -> UInt8[np.ndarray, "H W 3"]:
    if header.tags.get(_PHOTOMETRIC) == 0:
        raise UnusableClipError(_WHITE_IS_ZERO)
    values = np.asarray(image).astype(np.int64)
    most = int(values.max())
    if header.packing == "I;12":
        values = values << 4
    elif 0 < most <= _TWELVE_BITS and not 0 < header.most < 65535:
        raise UnusableClipError(
            f"has 16 bits and no value above {most}, as of 12 bits or fewer: it would be dark; "
            "expected the whole range to 65535"
        )
    brightest.append(int(values.max()))
    grey = (values >> 8).astype(np.uint8)
    key = image.info.get("transparency")
    alpha = np.full(grey.shape, 255, np.uint8) if key is None else np.uint8(255) * (values != key)
    return _on_black(np.stack([grey, grey, grey, alpha], axis=-1))


def _on_black(picture: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    if not picture[..., 3].any():
        raise UnusableClipError("is wholly transparent; expected something to see")
    return on_black(picture)


def _mend_colour_key(image: Image.Image, header: _Header) -> None:
    """The grey or colour of a PNG file that is transparent, as the decoded pixels have it."""
    key = image.info.get("transparency")
    if header.mode == "RGB" and ";16" in header.packing:
        raise UnusableClipError(
            "has 16 bits a channel and a transparent colour; expected 8, or alpha"
        )
    if header.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * _step(header)


def _step(header: _Header) -> int:
    """How far apart the decoded values of neighbouring stored greys are."""
    packed = re.match(r"L;(\d)", header.packing)
    return 255 // (2 ** int(packed[1]) - 1) if packed else 1


def _as_stored(values: Int[np.ndarray, "H W"], header: _Header) -> Int[np.ndarray, "H W"]:
    """Numbers that the decoder spread over the range of its mode, as they were."""
    if header.tags.get(_PHOTOMETRIC) == 0:
        raise UnusableClipError(_WHITE_IS_ZERO)
    if header.mode == "1" and header.format == "PPM":
        raise UnusableClipError("is PBM, whose 1 is black; expected PGM or PNG")
    if header.format == "PPM" and header.most:
        decoded = 65535 if header.mode == "I" else 255
        return (values * header.most + decoded // 2) // decoded
    return values // _step(header)


def _check_lossless(image: Image.Image, header: _Header) -> None:
    compression = image.info.get("compression")
    if header.format in _LOSSY or (header.format == "TIFF" and compression in _LOSSY_TIFF):
        kind = header.format if header.format in _LOSSY else f"TIFF with {compression}"
        raise UnusableClipError(f"is {kind}, which may change the numbers; expected PNG")


def _check_opaque(alpha: UInt8[np.ndarray, "H W"]) -> None:
    if (alpha < 255).any():
        raise UnusableClipError("is transparent in places; expected one channel, without alpha")


def _turned(pixels: np.ndarray, header: _Header) -> np.ndarray:
    """Upright; Pillow turns those of TIFF itself."""
    return pixels if header.format == "TIFF" else turn(pixels, header.orientation)
