"""What is written and printed of a suite."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest

from jaxmoe.evaluation import Check, MixtureFlops, Row, StageRow, SuiteResult
from jaxmoe.evaluation.measures import significance
from jaxmoe.reporting import (
    plot_bars,
    plot_robust_accuracy,
    plot_training,
    print_suite,
    read_results,
    results_markdown,
    write_results,
)
from jaxmoe.threat import format_epsilon

EPSILON = 8 / 255
CLEAN = Row("clean", 0.0, "linf", 0.75, 0.75, 4, 0, None, None, 0, 0.5, 2.0)._replace(
    load_clean=[0.75, 0.25], routing_entropy_clean=0.4
)
PGD = Row("pgd", EPSILON, "linf", 0.25, 0.5, 4, 0, 10, 1, 10, 1.5, 9.0, flip_rate=0.5)._replace(
    load_adversarial=[0.5, 0.5],
    routing_entropy_adversarial=0.6,
    lipschitz_model_mean=12.0,
    lipschitz_router_weights_mean=1.0,
    lipschitz_router_logits_mean=2.0,
    lipschitz_experts_mean=[3.0, float("nan")],
)
WORST = Row("worst-case", EPSILON, "linf", 0.125, 0.125, 4, 0, None, None, 10, 1.5, 9.0)
ROWS = (CLEAN, PGD, WORST)
CHECKS = (Check("zero gradients", 1.0, "flag", "All were zero."),)
FLOPS = MixtureFlops(0.01, 1.0, 1.11, 4.01, 0.277, 0.252, 11, 4)
RESULT = SuiteResult(ROWS, {}, np.arange(4), np.zeros(4), CHECKS, {"pgd": 1}, {"pgd": 9.0})


STAGES = (
    StageRow("auto-attack", "apgd-ce", EPSILON, 0.5, 2, 3, 303, 1.25, 9.5),
    StageRow("auto-attack", "square", EPSILON, 0.25, 1, 2, 0, 2.5, 0.0),
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("epsilon", "norm", "text"),
    [
        (8 / 255, "linf", "8/255"),
        (float(np.float32(4 / 255)), "linf", "4/255"),
        (0.05, "linf", "0.05"),
        (0.0, "linf", "0"),
        (2 / 255, "l2", "0.007843"),
        (1e-7, "linf", "1e-07"),
    ],
)
def test_epsilon_is_shown_in_grey_levels_where_it_is_a_whole_number(epsilon, norm, text):
    assert format_epsilon(epsilon, norm) == text


def test_results_json_is_a_list_of_rows_that_strict_readers_take(tmp_path):
    write_results(ROWS, tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    records = json.loads(text, parse_constant=refuse)
    assert [record["attack"] for record in records] == ["clean", "pgd", "worst-case"]
    assert all(set(record) == set(Row._fields) - {"measures"} for record in records)
    assert records[1]["robust_accuracy"] == 0.25
    assert records[1]["lipschitz_experts_mean"] == [3.0, None]
    assert records[0]["steps"] is None


def test_results_are_read_back_and_replaced_whole(tmp_path):
    folder = tmp_path / "new" / "folder"
    write_results(ROWS, folder)
    paths = write_results(ROWS[:1], folder)
    assert read_results(folder) == [CLEAN]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)


def test_csv_has_one_line_for_each_row(tmp_path):
    write_results(ROWS, tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    assert [record["attack"] for record in records] == ["clean", "pgd", "worst-case"]
    assert records[1]["load_adversarial"] == "0.5 0.5"
    assert records[0]["flip_rate"] == ""


def test_markdown_has_the_rows_the_checks_and_the_operations():
    lines = results_markdown(ROWS, CHECKS, FLOPS).splitlines()
    assert lines[3] == "| pgd | 8/255 | 25.00 | 0.6 to 80.6 | 4 | 50.00 | 10 | 1.50 |"
    assert "| flag | zero gradients | All were zero. |" in lines
    assert "mixture / dense 0.277" in lines[-1]


def test_it_is_said_where_no_check_ran():
    file = io.StringIO()
    print_suite(RESULT._replace(checks=()), file=file)
    not_run = (Check("zero gradients", None, "not run", "No attack took a gradient."),)
    for text in (file.getvalue(), results_markdown(ROWS, ()), results_markdown(ROWS, not_run)):
        assert "No check for masked gradients ran" in text
        assert "No sign of masked gradients" not in text
    assert "masked" not in results_markdown(ROWS)


def test_piped_output_is_plain_ascii_with_everything_in_it():
    file = io.StringIO()
    print_suite(RESULT, FLOPS, file=file)
    text = file.getvalue()
    assert text.isascii()
    assert "\x1b" not in text
    for words in (
        "pgd",
        "8/255",
        "25.00",
        "worst-case",
        "flag",
        "All were zero.",
        "50 50",
        "0.277",
    ):
        assert words in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_a_terminal_gets_a_table(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = Terminal()
    print_suite(RESULT, FLOPS, file=file)
    assert "━" in file.getvalue()
    assert "robust accuracy %" in file.getvalue()
    assert "robust accuracy: right when clean and under the attack; 95" in file.getvalue()


def test_a_cascade_is_shown_attack_by_attack_and_gradients_are_rounded():
    cascade = WORST._replace(attack="auto-attack", gradient_evaluations=75.75)
    out = io.StringIO()
    notes = ("apgd-t: 3 classes are few",)
    print_suite(RESULT._replace(rows=(CLEAN, cascade), stages=STAGES, notes=notes), file=out)
    assert notes[0] in out.getvalue()
    assert f"{notes[0]}." in results_markdown(ROWS, notes=notes).splitlines()
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["auto-attack", "8/255", "12.50", "0.0", "to", "71.6", "4", "-", "76", "1.50"] in lines
    assert ["auto-attack", "8/255", "square", "25.00", "1", "of", "2", "0", "2.50"] in lines
    assert "A sign of masked gradients (1 of 1 checks: zero gradients)" in out.getvalue()


def test_a_model_without_routing_is_printed_too():
    file = io.StringIO()
    rows = (CLEAN._replace(load_clean=None, routing_entropy_clean=None), WORST)
    print_suite(RESULT._replace(rows=rows, checks=()), file=file)
    assert "load" not in file.getvalue()


@pytest.mark.parametrize("rows", [ROWS, (CLEAN,), (CLEAN, PGD._replace(norm="l2"))])
def test_a_figure_is_a_png(tmp_path, rows):
    path = plot_robust_accuracy(rows, tmp_path / "figures")
    assert path.name == "robust_accuracy.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_curves_are_grouped_by_the_part_that_is_attacked(tmp_path, monkeypatch):
    from jaxmoe.reporting import figures

    drawn = []
    make = figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: drawn.append(make(*size)) or drawn[-1])
    curves = {
        "pgd": [(4 / 255, 0.5), (8 / 255, 0.4)],
        "fgsm": [(4 / 255, 0.45), (8 / 255, 0.6)],
        "pgd-r": [(4 / 255, 0.7), (8 / 255, 0.6)],
        "worst-case": [(4 / 255, 0.4), (8 / 255, 0.3)],
    }
    band = [(0.0, 0.7, 0.9), (8 / 255, 0.2, 0.4), (4 / 255, 0.31, 0.51)]
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        path = figures.plot_curves(curves, 0.8, tmp_path / f"a.{kind}", "t", "linf", band=band)
        assert path.read_bytes().startswith(start)
    (axes,) = drawn[0].axes
    (bold,) = [
        tuple(line.get_ydata())
        for line in axes.lines
        if line.get_linewidth() == 2.5 and line.get_color() == "C0" and len(line.get_ydata())
    ]
    assert bold == pytest.approx((80, 45, 40))  # the less of pgd and fgsm
    assert {text.get_text() for text in axes.texts} == set(curves)
    drawn_band = axes.collections[0].get_paths()[0].vertices
    for epsilon, *ends in band:
        here = drawn_band[np.isclose(drawn_band[:, 0], 255 * epsilon), 1]
        assert sorted({round(float(end), 4) for end in here}) == [100 * end for end in ends]


@pytest.mark.parametrize("iou", [None, 0.6])
def test_the_worst_cases_band_is_the_interval_of_its_figure(tmp_path, monkeypatch, iou):
    from jaxmoe.reporting import figures

    given = []
    monkeypatch.setattr(figures, "plot_curves", lambda *found: given.append(found[-1]))
    own = {"mean_iou": iou, "mean_iou_interval": [0.5, 0.8]} if iou else {}
    rows = [row._replace(**own) for row in ROWS]
    plot_robust_accuracy(rows, tmp_path)
    wanted = [row for row in rows if row.attack in ("clean", "worst-case")]
    assert given == [[(row.epsilon, *((0.5, 0.8) if iou else interval_of(row))) for row in wanted]]


def interval_of(row):
    return significance.interval(row.robust_accuracy * row.n, row.n)


def test_training_curves_are_drawn_if_there_are_any(tmp_path):
    metrics = [
        {"step": 1, "router/loss": 0.5, "router/gradient_norm": 1.0},
        {"step": 2, "validation/accuracy": 0.5, "validation/robust_accuracy": None},
    ]
    path = plot_training(metrics, tmp_path)
    assert path.name == "training.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert plot_training([], tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_bars_are_a_png(tmp_path):
    # Each lacks an attack that another has.
    models = {
        "AT-S": {"clean": 0.9, "fgsm": 0.5},
        "J-TLAT": {"clean": 0.8, "pgd": 0.6, "tlga-r": 1},
    }
    path = plot_bars(models, tmp_path / "bars.png", "of two models")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_matplotlib_waits_until_a_figure_is_drawn():
    code = "import sys, jaxmoe.reporting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("dense", [False, True])
def test_margins_are_drawn_for_every_class_that_is_there(tmp_path, monkeypatch, dense):
    from jaxmoe.reporting import figures

    drawn = []
    make = figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: drawn.append(make(*size)) or drawn[0])
    rng = np.random.default_rng(0)
    margins = {("clean", 0.0): rng.normal(2, 1, 30), ("pgd", 0.1): rng.normal(0, 1, 30)}
    margins["pgd", 0.05] = np.full(30, np.nan)  # of a smaller ε: not drawn
    labels = np.zeros((30, 2, 2), int) if dense else np.arange(30) % 5
    names = [f"class{i}" for i in range(6)]
    file = figures.plot_margins(margins, labels, names, tmp_path / "m.png", "t", "linf")
    assert file.read_bytes().startswith(b"\x89PNG")
    panels = [axes for axes in drawn[0].axes if axes.axison]
    titles = {axes.get_title() for axes in panels}
    assert titles == ({"all, n = 30"} if dense else {f"class{i}, n = 6" for i in range(5)})
    for axes in panels:  # clean and the worst case at the largest ε; each rises to 1
        steps = [line for line in axes.lines if len(line.get_xdata()) > 2]
        assert [line.get_label() for line in steps] == ["clean", "worst-case"]
        assert all(line.get_ydata()[-1] == 1 for line in steps)
    if dense:
        wrong = np.mean(margins["pgd", 0.1] < 0)
        places, heights = panels[0].lines[1].get_data()
        assert heights[np.searchsorted(places, 0.0) - 1] == pytest.approx(wrong)
