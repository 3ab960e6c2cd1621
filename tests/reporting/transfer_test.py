"""What is written and printed of a transfer matrix."""

import csv
import io
import json

import pytest
from matplotlib.axes import Axes

from jaxmoe.evaluation import ALL_OTHERS, TransferRow
from jaxmoe.reporting import plot_transfer, print_transfer, write_transfer

EPSILON = 4 / 255


def row(source, target, attack, robust, clean):
    return TransferRow(source, target, attack, EPSILON, "linf", robust, robust, clean, 8, 3)


ROWS = tuple(
    row(*entry[:2], attack, entry[2], {"clean": 0.875, "at_m": 0.75}[entry[1]])
    for attack in ("pgd", "universal")
    for entry in (
        ("clean", "clean", 0.0),
        ("clean", "at_m", 0.625),
        ("at_m", "clean", 0.25),
        ("at_m", "at_m", 0.5),
        (ALL_OTHERS, "clean", 0.25),
        (ALL_OTHERS, "at_m", 0.625),
    )
)


def test_files_hold_every_row(tmp_path):
    paths = write_transfer(ROWS, tmp_path / "new")
    names = [path.name for path in paths]
    assert names == ["transfer.json", "transfer.csv", "transfer.md"]
    records = json.loads(paths[0].read_text(encoding="utf-8"))
    assert [TransferRow(**record) for record in records] == list(ROWS)
    with paths[1].open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["robust_accuracy"] for line in lines] == [str(r.robust_accuracy) for r in ROWS]
    text = paths[2].read_text(encoding="utf-8")
    assert "## universal, ε = 4/255 (linf)" in text
    assert "| at_m | 25.00 | 50.00 |" in text


def test_a_run_called_clean_is_not_the_line_of_clean_clips():
    file = io.StringIO()
    print_transfer(ROWS[:6], file)
    title, header, *lines = file.getvalue().strip().splitlines()
    assert "pgd, eps = 4/255" in title
    assert header.split()[-2:] == ["clean", "at_m"]
    assert [line.rsplit(maxsplit=2)[0] for line in lines] == [
        "clean (no attack)",
        "clean",
        "at_m",
        "all others",
    ]
    values = [line.split()[-2:] for line in lines]
    assert values == [["87.50", "75.00"], ["0.00", "62.50"], ["25.00", "50.00"], ["25.00", "62.50"]]


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        (ROWS[:6], "87.5 75.0 0.0 62.5 25.0 50.0 25.0 62.5"),
        (ROWS[:4] + ROWS[5:6], "87.5 75.0 0.0 62.5 25.0 50.0 62.5"),  # one has no others
        (ROWS[6:7], "87.5 0.0"),
    ],
)
def test_the_figure_is_a_png_with_the_values_in_it(rows, values, tmp_path, monkeypatch):
    written, draw = [], Axes.text

    def text(axes, x, y, value, **options):
        written.append(value)
        return draw(axes, x, y, value, **options)

    monkeypatch.setattr(Axes, "text", text)
    path = plot_transfer(rows, tmp_path / "transfer.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert written == values.split()
