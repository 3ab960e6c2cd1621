"""Curves: the loss is that of the largest ε, and what is not finite is no point."""

import json
import re

import pytest

from jaxmoe.reporting.page import gather
from jaxmoe.reporting.page.sections.curves import curves
from tests.reporting.page.folders import make_run


@pytest.fixture
def run(tmp_path):
    return gather(make_run(tmp_path / "run", attacks=("pgd",)))


def with_traces(run, *traces):
    """The run, the traces of its attacks' rows exchanged."""
    left = list(traces)
    rows = [row._replace(loss_trace=left.pop(0)) if row.steps else row for row in run.rows]
    return run._replace(rows=tuple(rows))


@pytest.mark.parametrize("backwards", [False, True])
def test_the_loss_is_that_of_the_largest_radius_in_any_order(run, backwards):
    run = with_traces(run, [0.0, 1.0, 2.0], [0.0, 5.0, 7.0])
    if backwards:
        run = run._replace(rows=(run.rows[0], *run.rows[:0:-1]))
    (curve,) = curves(run).losses
    assert curve.note == "0 → 7"


def test_a_loss_that_is_not_known_keeps_the_places_of_others(run):
    first, second = [1.0, None, *[2.0] * 9], [90.0] * 11  # two starts of 10 steps
    run = with_traces(run, first + second, first + second)
    (curve,) = curves(run).losses
    assert curve.note == "1 → 2"
    assert "90 at" not in str(curve.picture)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_training_that_is_not_finite_is_left_out(tmp_path, value):
    folder = make_run(tmp_path / "run", attacks=())
    lines = [{"step": step, "at_m/loss": loss} for step, loss in ((1, 3.0), (2, value), (3, 1.0))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (loss,) = (curve for curve in curves(gather(folder)).charts if curve.title == "Training loss")
    assert re.findall(r"at m: (\S+) at", str(loss.picture)) == ["3", "1"]


def test_the_last_point_of_a_long_training_is_kept(tmp_path):
    folder = make_run(tmp_path / "run", attacks=())
    lines = [{"step": step, "at_m/loss": 1.0} for step in range(1000)]
    lines[-1]["at_m/loss"] = 9.0
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (loss,) = (curve for curve in curves(gather(folder)).charts if curve.title == "Training loss")
    (path,) = re.findall(r'd="(M[^"]*)"', str(loss.picture))
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]
    assert len(heights) <= 260
    assert heights[-1] < heights[0]


def test_the_cost_of_attacks_is_drawn_where_it_differs(tmp_path):
    run = gather(make_run(tmp_path / "run"))
    title = "Accuracy against gradients spent"
    assert title in [curve.title for curve in curves(run).charts]
    rows = [row._replace(gradient_evaluations=10.0) if row.steps else row for row in run.rows]
    assert title not in [curve.title for curve in curves(run._replace(rows=tuple(rows))).charts]
