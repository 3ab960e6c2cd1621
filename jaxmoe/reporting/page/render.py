"""The page: one HTML file that opens offline and asks nothing of a network."""

import base64
import datetime
import functools
import hashlib
import os
import pathlib
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from jaxmoe.files import write_text
from jaxmoe.reporting.page.figures.lines import mark
from jaxmoe.reporting.page.figures.svg import element
from jaxmoe.reporting.page.gather import RunFiles, gather, names_of
from jaxmoe.reporting.page.sections.attack_table import attack_table
from jaxmoe.reporting.page.sections.classes import classes
from jaxmoe.reporting.page.sections.curves import curves
from jaxmoe.reporting.page.sections.gallery import BYTES, gallery
from jaxmoe.reporting.page.sections.provenance import provenance
from jaxmoe.reporting.page.sections.routes import Routes, routes
from jaxmoe.reporting.page.sections.several import several, transfer_of
from jaxmoe.reporting.page.sections.verdict import POOLINGS, verdict
from jaxmoe.reporting.page.wording import columns_of_words, leading, percent

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT = "report.html"
MOST_WHOLE = 4  # runs whose every section is on one page; of more there is the verdict and table


def write_page(
    folders: Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    seed: int = 0,
) -> pathlib.Path:
    """Writes the page of one evaluation, or of several side by side.

    Args:
      folders: of evaluations, with their `results.json`.
      output: the file; None is `report.html` in the folder, or beside several.
      seed: of what is drawn where there are too many examples for a table.

    Returns:
      The file's path.

    Raises:
      FileNotFoundError, ValueError: of `gather`.
    """
    folders = [pathlib.Path(folder) for folder in folders]
    names = names_of(folders)
    runs = [gather(folder, name) for folder, name in zip(folders, names, strict=True)]
    if output is None:
        output = (folders[0] if len(folders) == 1 else folders[0].resolve().parent) / REPORT
    path = pathlib.Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page(runs, seed))
    return path


def page(runs: Sequence[RunFiles], seed: int = 0) -> str:
    """Returns the page of one run, or of several."""
    whole = len(runs) <= MOST_WHOLE
    budget = BYTES // len(runs)
    folders = [str(run.folder) for run in runs]
    return fill(
        "page.html",
        kind="robustness report",
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        runs=[_sections(run, place, seed, budget, whole) for place, run in enumerate(runs)],
        several=several(runs) if len(runs) > 1 else None,
        transfer=transfer_of(runs) if len(runs) == 1 else [],
        whole=whole,
        command=shlex.join(["jaxmoe", "report", *folders]),
    )


def fill(template: str, **values: Any) -> str:
    """Returns a page made from a template that extends `base.html`."""
    script, style = _source("page.js"), _source("page.css")
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            made=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
            script=Markup(script),
            style=Markup(style),
            # The browser runs this script and no other, whatever a name on the page may hold.
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        )
    )


def _sections(run: RunFiles, place: int, seed: int, budget: int, whole: bool) -> dict[str, Any]:
    """The sections of a run; ids begin with its number, as they have to differ."""
    found: dict[str, Any] = {
        "id": f"run{place}",
        "name": run.name,
        "run": run,
        "verdict": verdict(run),
        "table": attack_table(run),
        "provenance": provenance(run),
    }
    if whole:
        found |= {
            "curves": curves(run),
            "routes": routes(run) if run.part is None else Routes([], 0, _no_route(run.part)),
            "gallery": gallery(run, seed, budget),
            "classes": classes(run),
        }
    return found


def _no_route(part: str) -> str:
    what = "This part is one network" if part not in POOLINGS else "This part asks every expert"
    return f"{what}: it has no router, and there is no route to turn."


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jaxmoe.reporting.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["leading"] = leading
    environment.filters["columns_of_words"] = columns_of_words
    environment.globals["swatch"] = _swatch
    return environment


def _swatch(kind: str) -> Markup:
    """The mark of a series, for a legend."""
    own = {"class_": "swatch", "viewBox": "0 0 12 12", "aria_hidden": "true"}
    return element("svg", mark(kind, 6.0, 6.0), **own)


def _source(name: str) -> str:
    return (pathlib.Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
