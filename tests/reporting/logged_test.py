"""Loggers get an evaluation's figures and clips."""

import io

import numpy as np
from PIL import Image

from jaxmoe.reporting import write_results
from jaxmoe.reporting.logged import log_evaluation
from tests.reporting.reporting_test import ROWS
from tests.training.metrics_log_test import events


def test_an_evaluation_is_told_at_the_last_step(tmp_path):
    write_results(ROWS, tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 7}\n')
    Image.new("RGB", (6, 5)).save(tmp_path / "robust_accuracy.png")
    clean = np.zeros((2, 3, 4, 5, 1), np.uint8)
    np.savez(
        tmp_path / "shown.npz",
        clean=clean,
        adversarial=np.full(clean.shape, 1, np.float16),
        why=np.array(["survivor", "random"]),
    )
    log_evaluation(tmp_path, ("tensorboard",))
    found = {v.tag: v for event in events(tmp_path) for v in event.summary.value}
    assert {e.step for e in events(tmp_path) if e.summary.value} == {7}
    clean_row = next(row for row in ROWS if row.attack == "clean")
    told = found["evaluation/clean/0"].simple_value
    assert abs(told - clean_row.robust_accuracy) < 1e-6
    assert found["evaluation/robust_accuracy"].image.width == 6
    clip = found["evaluation/1_random"].image
    assert (clip.height, clip.width) == (4, 10)
    frames = Image.open(io.BytesIO(clip.encoded_image_string))
    pixels = np.asarray(frames.convert("RGB"))
    assert pixels[:, :5].max() == 0, "clean on the left"
    assert pixels[:, 5:].min() == 255
