"""The page of a study: its cells, what they are sorted by, its figure and its links."""

import numpy as np
import pytest

from jaxmoe.reporting.page.figures.intervals import Interval, intervals
from jaxmoe.reporting.page.figures.lines import percent_axis
from jaxmoe.reporting.page.study import StudyPart, StudyRun, study_page
from jaxmoe.reporting.page.wording import leading
from jaxmoe.reporting.text_table import TextTable
from tests.reporting.page.figures_test import parts
from tests.reporting.page.page_test import Page

EVIL = "<script>window.hit = 1</script>"
TABLE = TextTable(
    ["ε = 4/255, %", "clean", "L_Lip", "starts from"],
    [
        ["AT-S", "67.2 ± 3.9", "3.62e+04", "one network"],
        [EVIL, "–", "190", "–"],
        ["AT-M", "8.9 ± 2.1", "1.14", "standard"],
    ],
    "A note of the table.",
)
ROWS = [
    ("AT-S", [Interval("series0", "clean", 67.2, 60.0, 75.0)]),
    (EVIL, [Interval("series0", "clean", 0.0, 0.0, 100.0)]),
]


def make_page() -> str:
    figure = intervals("Accuracy", ROWS, percent_axis("accuracy, %"))
    part = StudyPart(
        "part0", "What came out", ["One is best."], figure, [("series0", "c")], [TABLE]
    )
    runs = [
        StudyRun("f0/at_s", "clean 67 %", "f0/at_s/report.html", "jaxmoe report f0/at_s"),
        StudyRun("f0/at_m", "clean 9 %", None, "jaxmoe report 'a b'"),
    ]
    return study_page("my study", [part], runs, "What ± is.", "jaxmoe study x.py --report")


def test_every_cell_is_there_with_the_number_that_it_is_sorted_by():
    page = Page(make_page())
    (table,) = [rows for kind, rows in page.tables if "sortable" in kind]
    assert [[text for text, _ in row] for row in table] == [TABLE.titles, *TABLE.rows]
    assert [[value for _, value in row[1:]] for row in table[1:]] == [
        ["67.2", "3.62e+04", None],
        ["–", "190", None],
        ["8.9", "1.14", None],
    ]
    assert "A note of the table." in page.text
    assert "What ± is." in page.text
    assert TABLE.markdown().endswith("\n\nA note of the table.")


def test_a_run_has_a_link_or_the_command_of_its_page():
    page = Page(make_page())
    links = [own["href"] for tag, own in page.tags if tag == "a"]
    assert links == ["#content", "#part0", "#runs", "f0/at_s/report.html"]
    copied = [own["data-copy"] for tag, own in page.tags if "data-copy" in own]
    assert copied == ["jaxmoe report 'a b'", "jaxmoe study x.py --report"]


def test_names_are_words_and_no_markup():
    assert EVIL not in make_page()
    assert EVIL in Page(make_page()).text


def test_marks_and_intervals_are_where_the_figures_are():
    figure = str(intervals("Accuracy", ROWS, percent_axis("accuracy, %")))
    assert figure.count("<text") == 5 + 1 + 2
    (first, second), (at, _) = parts(figure, "line"), parts(figure, "mark")
    low, high = float(second.get("x1")), float(second.get("x2"))  # 0 and 100 %
    place = lambda value: low + (high - low) * value / 100  # noqa: E731
    assert float(first.get("x1")) == pytest.approx(place(60), abs=0.01)
    assert float(first.get("x2")) == pytest.approx(place(75), abs=0.01)
    assert float(at.get("cx")) == pytest.approx(place(67.2), abs=0.01)
    assert float(at.get("cy")) == float(first.get("y1")) < float(second.get("y1"))
    assert "AT-S, clean: 67.2 (60.0 to 75.0)" in figure


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("79.0 ± 4.4", "79.0"),
        ("-26.9 (-36.2 to -16.7)", "-26.9"),
        ("+16.8 (+9.7 to +23.3)", "+16.8"),
        ("3.62e+04", "3.62e+04"),
        ("–", "–"),
        ("one network", "one network"),
    ],
)
def test_a_cell_is_sorted_by_the_number_that_it_begins_with(said, number):
    assert leading(said) == number


def test_names_with_many_figures_stay_apart():
    each = [Interval(f"series{i}", str(i), 50.0, 40.0, 60.0) for i in range(3)]
    figure = str(intervals("Accuracy", [("a", each), ("b", each)], percent_axis("%")))
    heights = [float(mark.get("cy")) for mark in parts(figure, "mark")]
    steps = np.diff(heights)  # two within a name, one between, two within
    assert min(steps) > 0
    assert steps[2] > 1.5 * max(steps[[0, 1, 3, 4]])
