"""Metrics of a run that was killed, and of a full disk."""

import errno
import json
import os
import threading

import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from jaxmoe.training import MetricsLog, read_metrics


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
