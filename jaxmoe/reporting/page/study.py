"""The page of a study: what came out, a figure, its tables, and where each run is."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from jaxmoe.reporting.page.render import fill
from jaxmoe.reporting.text_table import TextTable


class StudyPart(NamedTuple):
    """A section of the page, of one architecture.

    Attributes:
      id: of the section, for links.
      title: of the section.
      findings: sentences that say what came out.
      picture: a figure.
      legend: its series, `(kind, name)`.
      tables: all tables.
    """

    id: str
    title: str
    findings: Sequence[str]
    picture: Markup
    legend: Sequence[tuple[str, str]]
    tables: Sequence[TextTable]


class StudyRun(NamedTuple):
    """A run in the list of all.

    Attributes:
      name: the arm's title, and its block.
      headline: what it came to, in words.
      link: to its own page, if there is one.
      command: the command that writes that page.
    """

    name: str
    headline: str
    link: str | None
    command: str


def study_page(
    title: str, parts: Sequence[StudyPart], runs: Sequence[StudyRun], note: str, command: str
) -> str:
    """Returns the page; `note` says what its figures are, `command` makes it again."""
    return fill(
        "study.html",
        kind="study",
        title=title,
        parts_of=parts,
        runs=runs,
        note=note,
        command=command,
    )
