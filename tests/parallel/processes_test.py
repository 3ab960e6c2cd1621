"""Two processes train as one does, and go on as if nothing had been where any of them is stopped.

The local launcher starts them, on virtual CPU devices. A start takes as long as all its processes'
starts one after the other where they share a core, so all of this is for the night.
"""

import os
import pathlib
import random
import re
import signal
import subprocess

import numpy as np
import pytest

from tests.training.stopping import (
    PREEMPTED,
    STEPS_PER_EPOCH,
    being_saved,
    check_same,
    children,
    end,
    finish,
    last_step,
    params_of,
    start,
    stop_all,
    wait_until,
    write_config,
)

PAIR = ("--processes", "2")
EPOCHS = 12
SAVED = re.compile(r"^(\[1\] )?jaxmoe: preempted: saved at step (\d+); the same", re.MULTILINE)
STOPS = (
    "SIGTERM",
    "process 0 is killed",
    "process 1 is killed",
    "both are killed",
    "both are killed in a save",
    "process 1 is killed in a save",
)


@pytest.mark.nightly
@pytest.mark.parametrize("recipe", ["ATMConfig()", "JTLATConfig()"])
def test_two_processes_of_two_devices_equal_one_of_four(tmp_path, recipe):
    write_config(tmp_path, epochs=2, clean_epochs=1, clips=16, recipe=recipe)
    two, one = tmp_path / "two", tmp_path / "one"
    finish(start(two, (*PAIR, "--devices-per-process", "2")))
    finish(start(one, ("--virtual-devices", "4")))
    assert last_step(two) == last_step(one) == 6
    apart = [np.max(np.abs(a - b)) for a, b in zip(*map(params_of, (two, one)), strict=True)]
    print(f"{recipe}: two processes and one are {max(apart):.1e} apart")
    assert max(apart) <= 1e-5


def stop(run: pathlib.Path, launched: subprocess.Popen, how: str, step: int) -> str:
    """Stops two processes once they have logged a step; returns what they wrote."""

    def reached():
        return being_saved(run) >= step if how.endswith("save") else last_step(run) >= step

    try:
        assert wait_until(reached, launched), "it ended before"
        pair = children(launched)
        assert len(pair) == 2
        if how == "SIGTERM":
            launched.send_signal(signal.SIGTERM)
        else:
            killed = pair if how.startswith("both") else [pair[int(how.split()[1])]]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        errors = end(launched)
    finally:
        stop_all(launched)
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pair), "one was left behind"
    return errors


def check_stopped(run: pathlib.Path, launched: subprocess.Popen, how: str, errors: str) -> None:
    """The exit code says what to do next; after SIGTERM, both have saved at their last step."""
    if how != "SIGTERM":
        assert launched.returncode not in (0, PREEMPTED), errors
        return
    assert launched.returncode == PREEMPTED, errors
    saved = {number: int(step) for number, step in SAVED.findall(errors)}
    assert saved == {"": last_step(run), "[1] ": last_step(run)}


def truncate_latest(run: pathlib.Path) -> int:
    """Cuts off a file of the latest checkpoint; returns its step."""
    latest = run / "checkpoints" / "latest"
    step = max(int(name) for name in os.listdir(latest) if name.isdecimal())
    manifest = latest / str(step) / "state" / "manifest.ocdbt"
    os.truncate(manifest, manifest.stat().st_size // 2)
    return step


@pytest.mark.nightly
def test_a_pair_that_is_stopped_in_every_way_ends_as_one_that_was_not(tmp_path):
    write_config(tmp_path, epochs=EPOCHS)
    whole, run, draw = tmp_path / "whole", tmp_path / "run", random.Random(2)
    finish(start(whole, PAIR))
    for how in STOPS:
        launched = start(run, PAIR)
        errors = stop(run, launched, how, last_step(run) + draw.randint(1, 4))
        print(f"{how}: exit code {launched.returncode}, at step {last_step(run)}", flush=True)
        check_stopped(run, launched, how, errors)
    damaged = truncate_latest(run)
    lines = finish(start(run, PAIR)).splitlines()
    (warned,) = [line for line in lines if "[Gloo]" not in line]
    assert f"its latest checkpoint of step {damaged} is damaged" in warned
    check_same(run, whole, steps=EPOCHS * STEPS_PER_EPOCH)
