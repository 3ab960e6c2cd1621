"""Classes of pixels on the page: over all test examples, not those alone that are shown."""

import json

import numpy as np
import pytest

from jaxmoe.evaluation.measures.metrics import iou, mean_iou
from jaxmoe.reporting.page import gather
from jaxmoe.reporting.page.sections.classes import classes
from jaxmoe.reporting.page.wording import percent
from tests.reporting.page.folders import make_run

NAMES = ("road", "sky", "tree", "sign")


def make_dense(folder):
    """A run of pixels that were counted by class, and whose table has their mean IoU."""
    make_run(folder, frames=1, dense=True, classes=NAMES, attacks=("pgd",))
    with np.load(folder / "examples.npz") as file:
        arrays = dict(file)
    random = np.random.default_rng(0)
    counts = np.array(
        [random.integers(1, 9, (4, 4)) + np.diag([700, 500, 300, 0]) // (1 + r) for r in range(3)]
    )
    counts[:, 3], counts[:, :, 3] = 0, 0
    counts[2, 0, 3] = 40  # predicted, though nowhere labelled
    np.savez(folder / "examples.npz", **arrays | {"confusion": counts})
    rows = json.loads((folder / "results.json").read_text())
    for row, own in zip(rows, counts, strict=False):
        row["mean_iou"] = mean_iou(own)
    (folder / "results.json").write_text(json.dumps(rows))
    return counts


def test_iou_by_class_is_that_of_the_table(tmp_path):
    counts = make_dense(tmp_path / "run")
    run = gather(tmp_path / "run")
    found = classes(run)
    assert [panel.label for panel in found.iou] == ["pgd, ε = 4/255", "pgd, ε = 8/255"]
    assert found.iou[found.first].label == "pgd, ε = 8/255"
    for panel, row, own in zip(found.iou, run.attacks, counts[1:], strict=True):
        np.testing.assert_equal({r.name: r.clean for r in panel.rows}.get("sign", np.nan), np.nan)
        clean, attacked = np.nanmean([(r.clean, r.attacked) for r in panel.rows], axis=0)
        assert clean == pytest.approx(run.clean.mean_iou)
        assert attacked == pytest.approx(row.mean_iou)
        assert {r.name: r.attacked for r in panel.rows}["sky"] == iou(own)[1]
        before, after = percent(run.clean.mean_iou), percent(row.mean_iou)
        worst = min((r for r in panel.rows if r.share), key=lambda r: r.attacked)
        assert panel.sentence.startswith(f"Mean IoU {before} → {after} %. {worst.name} is the")
    assert found.iou[0].rows[0].name == "tree"
    assert found.iou[1].rows[0].name == "sign"
    said = "% IoU. sign is predicted, though nowhere labelled: IoU is 0."
    assert found.iou[1].sentence.endswith(said)


def test_without_counts_no_class_is_the_worst(tmp_path):
    run = gather(make_run(tmp_path / "run", frames=1, dense=True))
    found = classes(run)
    assert not found.iou
    assert "of before pixels were counted by class" in found.why_none
