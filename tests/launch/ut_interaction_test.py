"""The launcher's folds and its table; what it starts has its own tests."""

import csv
import itertools
import json

import pytest

from launch import ut_interaction as launcher
from tests.launch.fakes import finish


def test_folds_part_the_sequences(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    lines = [f"hug/seq{i:02}_x.avi,hug,train" for i in range(1, 21)]
    (data / "manifest.csv").write_text("\n".join(["path,label,split", *lines]))
    tested = []
    for seed in range(5):
        with launcher._write_fold(data, tmp_path, seed).open() as file:
            tested.append(
                [int(r["path"][7:9]) for r in csv.DictReader(file) if r["split"] == "test"]
            )
    assert tested[0] == [5, 10, 15, 20]
    assert sorted(itertools.chain(*tested)) == list(range(1, 21))


def test_videos_without_a_sequence_are_one_line(tmp_path):
    (tmp_path / "manifest.csv").write_text("path,label,split\nhug/x.avi,hug,train\n")
    with pytest.raises(SystemExit, match=r"hug/x\.avi .* no sequence"):
        launcher._write_fold(tmp_path, tmp_path, 0)


def test_the_table_has_the_means(tmp_path):
    for number, recipe in enumerate(launcher.RECIPES):
        for seed in (0, 1):
            run = tmp_path / f"{recipe}_{seed}"
            run.mkdir()
            rows = [("clean", 0, 0.9), ("pgd", 2 / 255, 0.5), ("pgd", 4 / 255, 0.1 * number)]
            records = [
                {"attack": a, "epsilon": e, "robust_accuracy": r - 0.1 * seed, "n": 20 + seed}
                for a, e, r in rows
            ]
            (run / "results.json").write_text(json.dumps(records))
            finish(run, 60.0 * (1 + seed))
    lines = launcher.tables(tmp_path, [0, 1]).splitlines()
    assert lines[0] == "| % | standard | at_m | tlat | j_tlat |"
    assert lines[2] == "| clean | 85.0 | 85.0 | 85.0 | 85.0 |"
    assert lines[3] == "| pgd | 45.0 / -5.0 | 45.0 / 5.0 | 45.0 / 15.0 | 45.0 / 25.0 |"
    assert lines[4] == "| minutes | 1.5 | 1.5 | 1.5 | 1.5 |"
    assert lines[5] == "| spread | 5.0 | 5.0 | 5.0 | 5.0 |"
    assert "seeds 0, 1, n = 20 + 21 clips" in lines[7]
