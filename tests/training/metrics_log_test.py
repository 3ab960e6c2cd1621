"""Metrics of a run that was killed, and of a full disk."""

import errno
import importlib.machinery
import importlib.util
import io
import json
import os
import sys
import threading
import types

import numpy as np
import pytest
from PIL import Image
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from jaxmoe.training import MetricsLog, read_metrics
from jaxmoe.training.loggers import open_loggers


def lines(*steps):
    return "".join(json.dumps({"step": step, "loss": 0.5}) + "\n" for step in steps)


@pytest.mark.parametrize(
    "torn", ['{"step": 3, "lo', "\x00\x00\x00", "12", '{"loss": 1}', "\udcff{"], ids=range(5)
)
def test_half_a_line_is_no_line(tmp_path, torn):
    text = (lines(1, 2) + torn).encode(errors="surrogateescape")
    (tmp_path / "metrics.jsonl").write_bytes(text)
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2]
    log = MetricsLog(tmp_path, resume_step=1)
    log.write(2, {"loss": 0.25})
    log.close()
    entries = read_metrics(tmp_path)
    assert [(entry["step"], entry["loss"]) for entry in entries] == [(1, 0.5), (2, 0.25)]


def events(run):
    """What TensorBoard would read: every record of every file, by the format's lengths."""
    for file in sorted((run / "tensorboard").iterdir()):
        data = file.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            yield Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]


def test_tensorboard_gets_every_number_and_forgets_what_a_resumed_run_repeats(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(1, {"stage": "standard", "loss": 0.5, "count": 3})
    log.close()
    found = [(v.tag, v.simple_value, e.step) for e in events(tmp_path) for v in e.summary.value]
    assert found == [("loss", 0.5, 1), ("count", 3.0, 1)]
    again = MetricsLog(tmp_path / "resumed", resume_step=4)
    again.close()
    assert 5 in [event.step for event in events(tmp_path / "resumed") if event.session_log.status]


def test_a_full_disk_is_told_where_it_happens_and_not_by_a_thread(tmp_path, monkeypatch):
    threads = threading.active_count()
    log = MetricsLog(tmp_path)
    assert threading.active_count() == threads

    def full(self, event):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(EventsWriter, "write_event", full)
        with pytest.raises(OSError, match="No space left") as raised:
            log.write(1, {"loss": 0.5})
    assert raised.value.filename == str(tmp_path)
    log.close()


class FakeRun:
    """What the package `wandb` does with a run, as far as it is asked."""

    def __init__(self, **given):
        self.given, self.logged, self.finished = given, [], False

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.runs = []
    module.init = lambda **given: module.runs.append(FakeRun(**given)) or module.runs[-1]
    module.Image = lambda picture: ("image", picture.size)
    module.Video = lambda data, format: ("video", format, Image.open(data).n_frames)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return module


def test_weights_and_biases_is_told_the_same_and_goes_on_offline(tmp_path, wandb):
    (tmp_path / "config.json").write_text('{"recipe": {"name": "at_m"}}')
    for resume_step in (0, 1):
        log = MetricsLog(tmp_path, resume_step, loggers=("wandb",))
        log.write(resume_step + 1, {"stage": "standard", "loss": 0.5, "count": 3})
        log.close()
    assert not (tmp_path / "tensorboard").exists()
    first, second = wandb.runs
    assert first.logged == [{"step": 1, "loss": 0.5, "count": 3}]
    assert second.logged == [{"step": 2, "loss": 0.5, "count": 3}]
    assert first.finished
    assert first.given["id"] == second.given["id"]
    assert (first.given["mode"], first.given["resume"]) == ("offline", None)
    assert first.given["config"] == {"recipe": {"name": "at_m"}}
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2]


def test_weights_and_biases_goes_on_online(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    MetricsLog(tmp_path, loggers=("wandb",)).close()
    assert (wandb.runs[0].given["mode"], wandb.runs[0].given["resume"]) == ("online", "allow")


def test_figures_and_clips_are_pictures_of_both(tmp_path, wandb):
    frames = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3), np.uint8)
    png = io.BytesIO()
    Image.fromarray(frames[0]).save(png, "PNG")
    for logger in open_loggers(("tensorboard", "wandb"), tmp_path):
        logger.figure(2, "curve", png.getvalue())
        logger.clip(2, "clip", frames)
        logger.close()
    found = {v.tag: v.image for e in events(tmp_path) for v in e.summary.value}
    assert {(name, image.height, image.width) for name, image in found.items()} == {
        ("curve", 4, 5),
        ("clip", 4, 5),
    }
    assert Image.open(io.BytesIO(found["clip"].encoded_image_string)).n_frames == 3
    assert wandb.runs[0].logged == [
        {"step": 2, "curve": ("image", (5, 4))},
        {"step": 2, "clip": ("video", "gif", 3)},
    ]


def test_a_logger_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"run\.logger: wandb is not installed"):
        open_loggers(("wandb",), tmp_path)
