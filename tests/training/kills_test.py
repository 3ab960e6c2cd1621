"""A run that is stopped at any moment goes on as if nothing had been.

What stops it: SIGTERM, which it saves on; SIGKILL at a random moment of its training, of its start,
or while a checkpoint is written. Each goes by a seed, and the run's own steps tell the moment.
"""

import collections
import pathlib
import random
import re
import signal
import subprocess
import time

import pytest

from jaxmoe.cli import main
from jaxmoe.training import Checkpoints
from tests.training.stopping import (
    PREEMPTED,
    STEPS_PER_EPOCH,
    being_saved,
    check_same,
    end,
    finish,
    last_step,
    start,
    stop_all,
    wait_until,
    write_config,
)

SAVED = re.compile(r"jaxmoe: preempted: saved at step (\d+); the same command resumes")


def stop(run: pathlib.Path, process: subprocess.Popen, kind: str, draw: random.Random) -> str:
    """Stops a run at a moment of a kind; returns what came of it."""
    before, began = last_step(run), time.monotonic()
    step, delay, start_up = draw.randint(1, 8), draw.uniform(0, 0.05), draw.uniform(0, 10)

    def reached():
        if kind == "in a save":
            return being_saved(run) > before
        if kind == "in its start" and time.monotonic() > began + start_up:
            return True
        return last_step(run) >= before + step

    try:
        if not wait_until(reached, process):
            return "it ended before"
        if kind not in ("in a save", "in its start"):
            time.sleep(delay)  # any moment between two steps, not only behind the log's line
        process.send_signal(signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL)
        errors = end(process)
    finally:
        stop_all(process)
    if kind == "SIGTERM":
        return check_preempted(run, process, errors)
    assert process.returncode in (0, -signal.SIGKILL), errors
    if process.returncode == 0:
        return "it ended before"
    return f"SIGKILL {kind}" if kind != "in a save" or being_saved(run) else "SIGKILL after a save"


def check_preempted(run: pathlib.Path, process: subprocess.Popen, errors: str) -> str:
    """A run that got SIGTERM says the step at which it saved, which is the last in its metrics."""
    if process.returncode == 0:
        return "it ended before"
    assert process.returncode == PREEMPTED, errors
    (saved,) = SAVED.findall(errors)
    assert last_step(run) == int(saved)
    assert Checkpoints(run).position("latest")["global_step"] == int(saved)
    return "SIGTERM"


def damage_latest(run: pathlib.Path) -> int:
    """Flips a bit of the latest checkpoint; returns its step."""
    steps = [int(folder.name) for folder in (run / "checkpoints/latest").glob("*[0-9]")]
    file = run / "checkpoints" / "latest" / str(max(steps)) / "state" / "manifest.ocdbt"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    return max(steps)


@pytest.mark.nightly
def test_a_run_that_was_preempted_killed_and_damaged_ends_as_one_that_was_not(
    tmp_path, monkeypatch
):
    write_config(tmp_path, epochs=5, clean_epochs=1, validate_every=5)
    whole, run, draw = tmp_path / "whole", tmp_path / "run", random.Random(0)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "config.py", "--run.directory", "whole"]) == 0  # in this process
    assert stop(run, start(run), "SIGTERM", draw) == "SIGTERM"
    assert stop(run, start(run), "in training", draw) == "SIGKILL in training"
    damaged = damage_latest(run)
    (warned,) = finish(start(run)).splitlines()
    assert f"its latest checkpoint of step {damaged} is damaged" in warned
    assert (run / "checkpoints" / "damaged" / f"latest-{damaged}").is_dir()
    check_same(run, whole, steps=6 * STEPS_PER_EPOCH)


@pytest.mark.nightly
def test_a_run_that_is_stopped_at_twenty_random_moments_ends_as_one_that_was_not(tmp_path):
    epochs, kinds = 48, ("SIGTERM", "in training", "in its start", "in a save") * 5
    write_config(tmp_path, epochs=epochs, validate_every=8)
    whole, run, draw = tmp_path / "whole", tmp_path / "run", random.Random(1)
    finish(start(whole))
    moments = []
    for kind in draw.sample(kinds, len(kinds)):
        moments.append((stop(run, start(run), kind, draw), last_step(run)))
    finish(start(run))
    counts = collections.Counter(what for what, _ in moments)
    print(f"{len(moments)} moments, {dict(counts)}; at steps {[step for _, step in moments]}")
    check_same(run, whole, steps=epochs * STEPS_PER_EPOCH)
    assert not counts["it ended before"], "the run is too short for so many stops"
    assert counts["SIGKILL in a save"], "no save was interrupted"
