"""HTML for a notebook: results, a mixture, a trained run and the report page."""

import html
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE, SuiteResult
from jaxmoe.evaluation.engine.verdict import verdict_line
from jaxmoe.mixture import Mixture
from jaxmoe.reporting.tables import legend, main_table

_NUMBERS = "text-align:right;font-variant-numeric:tabular-nums"


class Report(NamedTuple):
    """A report page that was written; a notebook shows it.

    Attributes:
      path: of the file.
    """

    path: pathlib.Path

    def _repr_html_(self) -> str:
        """The page in a frame, which sees nothing of the notebook."""
        page = html.escape(self.path.read_text(encoding="utf-8"))
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts" title="report" '
            'style="width:100%;height:80vh;border:0"></iframe>'
        )


def suite_html(result: SuiteResult) -> str:
    """Returns a suite's table and its verdict on masked gradients."""
    titles, rows = main_table(result.rows)
    first = result.rows[0]
    caption = f"n = {first.n} examples, seed {first.seed}, norm {first.norm}"
    bold = [cells[0] in (CLEAN, WORST_CASE) for cells in rows]
    lines = [table(titles, rows, caption, bold), _line(legend(result.rows))]
    lines += map(_line, result.notes)
    checks = (*result.checks, *result.model_checks)
    flagged = [check for check in checks if check.verdict == "flag"]
    lines += [_line(f"{check.name}: {check.sentence}") for check in flagged]
    return "\n".join([*lines, _line(verdict_line(checks))])


def mixture_html(mixture: Mixture) -> str:
    """Returns what a mixture is, as a table of two columns."""
    m, k = mixture.num_experts, mixture.top_k
    parts = [["experts, M", str(m)], ["experts that see an example", str(k)]]
    parts.append(["their weights", mixture.combine])
    if mixture.standard is not None:
        parts.append(["dual model", f"beside a standard mixture of {mixture.standard.num_experts}"])
    return table(["a mixture of experts", ""], parts)


def run_html(trained: Any) -> str:
    """Returns what a trained run is, as a table of two columns.

    Args:
      trained: of `jaxmoe.runs.load`.
    """
    experiment, dataset = trained.experiment, trained.dataset
    mixture, count = experiment.mixture, len(dataset.test)
    parts = [
        ["recipe", experiment.recipe.name],
        ["model", f"{mixture.experts} × {experiment.expert.name}, {mixture.top_k} an example"],
        ["data", f"{experiment.data.name}, {len(dataset.classes)} classes, {count} test examples"],
        ["state", trained.state],
        ["threat", f"{experiment.threat.norm}, ε = {experiment.threat.epsilon:.4g}"],
    ]
    return table([experiment.run.directory, ""], parts)


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    bold: Sequence[bool] = (),
) -> str:
    """Returns a table in HTML; the first column is of names, the others of numbers.

    Args:
      titles: of the columns.
      rows: the cells, text that is not HTML yet.
      caption: above the table.
      bold: of each row.
    """
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    lines = [f"<table><caption>{html.escape(caption)}</caption>"] if caption else ["<table>"]
    lines.append(f"<thead><tr>{head}</tr></thead><tbody>")
    for place, (name, *cells) in enumerate(rows):
        weight = "bold" if place < len(bold) and bold[place] else "normal"
        others = "".join(f'<td style="{_NUMBERS}">{html.escape(cell)}</td>' for cell in cells)
        lines.append(
            f'<tr style="font-weight:{weight}"><th style="text-align:left;font-weight:inherit">'
            f"{html.escape(name)}</th>{others}</tr>"
        )
    return "\n".join([*lines, "</tbody></table>"])


def _line(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
