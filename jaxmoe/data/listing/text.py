"""Reads the text files of a data set: lists, names of classes, manifests."""

import codecs
import pathlib


def read_text(file: pathlib.Path, field: str) -> str:
    """Returns a file's text: UTF-8, or UTF-16 that begins with a byte order mark.

    Args:
      file: it exists.
      field: the configuration's field to name in an error, such as `data.manifest`.

    Raises:
      ValueError: it is in another encoding, as UTF-16 without a mark, or cannot be read.
    """
    try:
        content = file.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{field}: {file} is no text in UTF-8: {error}") from None
    if "\0" in text:
        raise ValueError(f"{field}: {file} is no text in UTF-8: it has bytes of zero")
    return text
