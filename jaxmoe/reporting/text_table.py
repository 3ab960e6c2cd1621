"""Tables in words: for a terminal, a Markdown file and a page."""

from typing import NamedTuple


class TextTable(NamedTuple):
    """A table in words, for a terminal and for a page.

    Attributes:
      titles: of its columns; the first says what the rows are.
      rows: a cell for each title.
      note: a sentence below, if there is one to say.
    """

    titles: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """Returns the table in Markdown, and its note below."""
        lines = markdown_table(self.titles, self.rows)
        return "\n".join([*lines, "", self.note] if self.note else lines)


def markdown_table(titles: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows)]
