"""Photographs a report page for the README: python launch/gallery/run.py RUN

RUN is a run that was judged, `runs/quickstart/j_tlat`, say. The page is made anew and opened
in a headless Chromium, which has to be installed (Debian's package `chromium`); each picture shows
some of its sections. They are written beside this file, with few colours so that all are small.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

from PIL import Image, ImageChops

from jaxmoe.reporting.page import write_page

_HERE = pathlib.Path(__file__).parent
_WIDTH, _TALLEST = 1100, 4000
_MARGIN = 24  # below what is shown, pixels
_COLOURS = 128
_FLAGS = (
    *("--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Shot(NamedTuple):
    """A picture of some sections.

    Attributes:
      sections: ends of their ids; all others are hidden.
      theme: light or dark.
      height: of the picture at most, pixels.
    """

    sections: tuple[str, ...]
    theme: str
    height: int = _TALLEST


SHOTS = {
    "verdict": Shot(("verdict", "attacks"), "light"),
    "routes": Shot(("routes",), "light", 600),
    "examples": Shot(("examples",), "dark", 860),
}


def main() -> None:
    """Writes the pictures."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("chromium: not found; expected it after: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = write_page([sys.argv[1]], pathlib.Path(folder) / "report.html")
        for name, shot in SHOTS.items():
            picture = photograph(browser, page, shot)
            picture.save(_HERE / f"{name}.png", optimize=True)
            print(f"{name}.png: {picture.width} × {picture.height}")


def photograph(browser: str, page: pathlib.Path, shot: Shot) -> Image.Image:
    """Returns a picture of some sections of a page, as high as they are.

    Args:
      browser: path of a Chromium.
      page: the file; what is made on the way lies beside it.
      shot: which sections.
    """
    shown = ",".join(f"#run0-{section}" for section in shot.sections)
    hidden = f"header.top, nav, footer, main details.section:not({shown})"
    style = f"{hidden} {{ display: none !important }}"
    text = page.read_text(encoding="utf-8")
    text = text.replace("</style>", f"{style}</style>", 1)
    text = text.replace("<html ", f'<html data-theme="{shot.theme}" ', 1)
    copy, png = page.with_name("shot.html"), page.with_name("shot.png")
    copy.write_text(text, encoding="utf-8")
    subprocess.run(
        [
            browser,
            *_FLAGS,
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            f"--user-data-dir={page.with_name('browser')}",
            f"--window-size={_WIDTH},{_TALLEST}",
            f"--blink-settings=preferredColorScheme={int(shot.theme == 'light')}",
            f"--screenshot={png}",
            copy.as_uri(),
        ],
        check=True,
        capture_output=True,
    )
    whole = Image.open(png).convert("RGB")
    ground = Image.new("RGB", whole.size, whole.getpixel((0, whole.height - 1)))
    bottom = ImageChops.difference(whole, ground).getbbox()[3] + _MARGIN
    cut = whole.crop((0, 0, whole.width, min(bottom, shot.height, whole.height)))
    return cut.quantize(_COLOURS)


if __name__ == "__main__":
    main()
