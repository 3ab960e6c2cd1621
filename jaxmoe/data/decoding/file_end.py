"""Tells from a container's own structure whether a file ends before its container does.

Nothing is decoded: the sizes that a container writes in front of its parts say where each ends.
"""

import enum
import pathlib
from collections.abc import Callable
from typing import BinaryIO


class FileEnd(enum.Enum):
    """How a container takes the end of its file."""

    EARLY = "a part reaches beyond the end of the file"
    WHOLE = "the last part of the container is there"
    UNKNOWN = "the container does not say"


# Some writers of AVI count the 8 bytes of the first header twice.
_RIFF_SLACK = 8
_SECTOR = 512
_TRANSPORT_PACKETS = ((188, 0), (192, 4))  # length and place of the sync byte: TS, M2TS


def file_end(file: pathlib.Path) -> FileEnd:
    """Returns how a file ends: AVI, MP4, MOV, MKV, WebM, FLV, Ogg, GIF, PNG, WMV and MPEG do.

    One that ends in zeros may lack what should be there: a container of the right size is no proof.

    Raises:
      OSError: the file cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(400)
        for fits, end_of in _CONTAINERS:
            if fits(start):
                try:
                    found = end_of(stream, size)
                except EOFError:
                    return FileEnd.EARLY
                zeros = found is FileEnd.WHOLE and _ends_in_zeros(stream, size)
                return FileEnd.UNKNOWN if zeros else found
    return FileEnd.UNKNOWN


def _at(stream: BinaryIO, position: int, count: int) -> bytes:
    stream.seek(position)
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _ends_in_zeros(stream: BinaryIO, size: int) -> bool:
    """Returns whether a file's room was taken before it was filled, and its last sector was not."""
    return not any(_at(stream, max(0, size - _SECTOR), min(_SECTOR, size)))


def _number(data: bytes, order: str = "big") -> int:
    return int.from_bytes(data, order)


def _ends_at(position: int, size: int) -> FileEnd:
    return FileEnd.EARLY if position > size else FileEnd.WHOLE


def _riff(stream: BinaryIO, size: int) -> FileEnd:
    """AVI: RIFF lists, more than one where it is larger than a gigabyte."""
    position = 0
    while size - position >= 8:
        head = _at(stream, position, 8)
        length = _number(head[4:], "little")
        if head[:4] != b"RIFF":
            break
        if not length or length >= 0xFFFFFFF0:  # a recorder that was never stopped
            return FileEnd.UNKNOWN
        position += 8 + length
    return _ends_at(position - _RIFF_SLACK, size)


def _boxes(stream: BinaryIO, size: int) -> FileEnd:
    """MP4 and MOV: boxes, ISO/IEC 14496-12 section 4.2; fragments follow one another."""
    position, fragments, end = 0, False, False
    while size - position >= 8:
        head = _at(stream, position, 8)
        length, name = _number(head[:4]), head[4:]
        if length == 1:
            length = _number(_at(stream, position + 8, 8))
        if length < 8:  # 0 is all the rest
            return FileEnd.UNKNOWN
        fragments |= name == b"moof"
        end |= name == b"mfra"
        position += length
    if fragments and not end and position <= size:
        return FileEnd.UNKNOWN
    return _ends_at(position, size)


def _ebml(stream: BinaryIO, size: int) -> FileEnd:
    """Matroska and WebM: a header and a segment, RFC 8794 section 4.

    A segment that was sent while it was made has no size, nor have its clusters: their parts do.
    """
    position, sized = 0, True
    while position < size:
        name = _width(stream, position)
        if name > 4:  # no element
            break
        position += name
        width = _width(stream, position)
        value = _number(_at(stream, position, width)) & ((1 << 7 * width) - 1)
        unsized = value == (1 << 7 * width) - 1
        sized &= not unsized
        position += width + (0 if unsized else value)
    if position > size:
        return FileEnd.EARLY
    return FileEnd.WHOLE if sized else FileEnd.UNKNOWN


def _width(stream: BinaryIO, position: int) -> int:
    """Bytes that a name or a number of EBML takes."""
    return 9 - _at(stream, position, 1)[0].bit_length()


def _flash(stream: BinaryIO, size: int) -> FileEnd:
    """FLV: tags, each with its size before and after it; nothing marks the last one."""
    position = _number(_at(stream, 5, 4)) + 4
    while position < size:
        head = _at(stream, position, 11)
        if head[0] & 0x1F not in (8, 9, 18):  # sound, picture, data
            return FileEnd.UNKNOWN
        position += 11 + _number(head[1:4]) + 4
    return FileEnd.EARLY if position - 4 > size else FileEnd.UNKNOWN


def _ogg(stream: BinaryIO, size: int) -> FileEnd:
    """Ogg: pages, RFC 3533 section 6; the last one is marked, but not in a recorded broadcast."""
    position, last = 0, False
    while position < size and not (last and size - position < 27):
        head = _at(stream, position, 27)
        if head[:4] != b"OggS":
            zeros = not last and _ends_in_zeros(stream, size)
            return FileEnd.EARLY if zeros else FileEnd.UNKNOWN
        last = bool(head[5] & 4)
        position += 27 + head[26] + sum(_at(stream, position + 27, head[26]))
    if position > size:
        return FileEnd.EARLY
    return FileEnd.WHOLE if last else FileEnd.UNKNOWN


def _gif(stream: BinaryIO, size: int) -> FileEnd:
    """GIF89a: blocks up to a trailer, which some writers leave out."""
    position = 13 + _colours(_at(stream, 10, 1)[0])
    while position < size:
        match _at(stream, position, 1):
            case b"\x21":  # an extension
                position += 2
            case b"\x2c":  # a picture
                position += 11 + _colours(_at(stream, position + 9, 1)[0])
            case b"\x3b":
                return FileEnd.WHOLE
            case b"\0" if _ends_in_zeros(stream, size):
                return FileEnd.EARLY
            case _:
                return FileEnd.UNKNOWN
        while length := _at(stream, position, 1)[0]:
            position += 1 + length
        position += 1
    return FileEnd.EARLY if position > size else FileEnd.UNKNOWN


def _chunks(stream: BinaryIO, size: int) -> FileEnd:
    """PNG and APNG: a signature, then chunks up to the one that ends every picture."""
    position = 8
    while position < size:
        head = _at(stream, position, 8)
        position += 12 + _number(head[:4])
        if head[4:] == b"IEND":
            return _ends_at(position, size)
    return FileEnd.EARLY


def _colours(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _objects(stream: BinaryIO, size: int) -> FileEnd:
    """WMV: ASF's objects; in a broadcast the one with the data has the size of its head alone."""
    position = 0
    while size - position >= 24:
        length = _number(_at(stream, position, 24)[16:], "little")
        if length <= 50:
            return FileEnd.UNKNOWN
        position += length
    return _ends_at(position, size)


def _program(stream: BinaryIO, size: int) -> FileEnd:
    """MPEG-PS: packs and packets, ISO/IEC 13818-1 section 2.5.3; an end code is usual, not sure."""
    position = 0
    while position < size:
        head = _at(stream, position, 4)
        if head[:3] != b"\0\0\1" or head[3] < 0xB9:
            return FileEnd.UNKNOWN
        if head[3] == 0xB9:
            return FileEnd.WHOLE
        if head[3] == 0xBA:  # a pack: of MPEG-2, else of MPEG-1
            newer = _at(stream, position + 4, 1)[0] >> 6 == 1
            position += 14 + (_at(stream, position + 13, 1)[0] & 7) if newer else 12
        else:
            position += 6 + _number(_at(stream, position + 4, 2))
    return FileEnd.EARLY if position > size else FileEnd.UNKNOWN


def _transport(stream: BinaryIO, size: int) -> FileEnd:
    """MPEG-TS: packets of one length, without an end."""
    length = next(n for n, sync in _TRANSPORT_PACKETS if _synchronous(_at(stream, 0, 400), n, sync))
    return FileEnd.EARLY if size % length else FileEnd.UNKNOWN


def _synchronous(start: bytes, length: int, sync: int) -> bool:
    return start[sync : sync + 2 * length + 1 : length] == b"\x47" * 3


_CONTAINERS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], FileEnd]], ...] = (
    (lambda start: start[:4] == b"RIFF", _riff),
    (lambda start: start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"), _boxes),
    (lambda start: start[:4] == b"\x1a\x45\xdf\xa3", _ebml),
    (lambda start: start[:3] == b"FLV", _flash),
    (lambda start: start[:4] == b"OggS", _ogg),
    (lambda start: start[:3] == b"GIF", _gif),
    (lambda start: start[:8] == b"\x89PNG\r\n\x1a\n", _chunks),
    (lambda start: start[:4] == b"\x30\x26\xb2\x75", _objects),
    (lambda start: start[:4] == b"\0\0\1\xba", _program),
    (lambda start: any(_synchronous(start, *packet) for packet in _TRANSPORT_PACKETS), _transport),
)
