"""What a notebook shows of results and of a mixture."""

from html.parser import HTMLParser

import jax.numpy as jnp

from jaxmoe.mixture import from_functions
from jaxmoe.reporting.notebook import Report
from jaxmoe.reporting.tables import main_table
from tests.reporting.reporting_test import CHECKS, RESULT


class Cells(HTMLParser):
    """The texts of a page, and its tags."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


def test_results_are_their_table_and_what_the_checks_flag():
    page = Cells(RESULT._repr_html_())
    titles, rows = main_table(RESULT.rows)
    cells = [cell for row in (titles, *rows) for cell in row]
    start = page.texts.index(titles[0])
    assert page.texts[start : start + len(cells)] == cells
    for check in CHECKS:
        said = any(check.sentence in text for text in page.texts)
        assert said == (check.verdict == "flag")


def test_names_are_text_and_no_tags():
    worst = RESULT.rows[-1]._replace(attack="<script>alert(1)</script>")
    page = Cells(RESULT._replace(rows=(*RESULT.rows, worst))._repr_html_())
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.texts


def test_a_mixture_says_how_many_experts_it_has():
    mixture = from_functions(
        lambda params, x: jnp.zeros((len(x), 5)),
        lambda params, x: jnp.zeros((len(x), 3)),
        num_experts=5,
        top_k=2,
        combine="renormalized",
    )
    texts = Cells(mixture._repr_html_()).texts
    assert texts[texts.index("experts, M") + 1] == "5"
    assert texts[texts.index("experts that see an example") + 1] == "2"
    assert "renormalized" in texts


def test_a_report_is_a_frame_that_sees_nothing_of_the_notebook(tmp_path):
    page = tmp_path / "report.html"
    page.write_text('<p class="a">1 < 2 & "quoted"</p>', encoding="utf-8")
    frames = []

    class Frames(HTMLParser):
        def handle_starttag(self, tag, attrs):
            frames.append((tag, dict(attrs)))

    Frames().feed(Report(page)._repr_html_())
    ((tag, attributes),) = frames
    assert tag == "iframe"
    assert attributes["srcdoc"] == page.read_text(encoding="utf-8")
    assert attributes["sandbox"] == "allow-scripts"
