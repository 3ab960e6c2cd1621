"""The local launcher: what each process is told, and what is done when one of them ends."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch import local

LAUNCHER = pathlib.Path(local.__file__)
ROOT = LAUNCHER.parent.parent
CONFIG = """
from jaxmoe.config import *

def config():
    return Experiment(
        data=SyntheticActionsConfig(
            frames=4, height=16, train_clips=20, validation_clips=10, test_clips=10
        ),
        expert=ResNetConfig(width=4, stage_sizes=(1,)),
        router=PooledRouterConfig(),
        mixture=MixtureConfig(experts=2),
        training=TrainingConfig(epochs=1, batch_size=8),
        run=RunConfig(directory="run"),
    )
"""
# Children of the supervision: each does what its number says, and imports no JAX.
EXITS = "import os, sys; sys.exit(int(os.environ['CODES'].split()[int(os.environ['INDEX'])]))"
WAITS = """
import os, pathlib, signal, sys, time
index = int(os.environ["INDEX"])
def end(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
ready = pathlib.Path(os.environ["READY"])
(ready / str(index)).touch()
while len(list(ready.iterdir())) < int(os.environ["COUNT"]):
    time.sleep(0.01)
{then}
time.sleep(60)
"""
# The launcher itself, over children of a test.
SUPERVISOR = """
import os, signal, sys
from launch import local
# A shell starts what runs in its background with SIGINT ignored, and the launcher keeps to that.
signal.signal(signal.SIGINT, signal.default_int_handler)
environments = [dict(os.environ, INDEX=str(index)) for index in range(int(sys.argv[1]))]
sys.exit(local.supervise([sys.executable, "-c", sys.argv[2]], environments, moment=0.5))
"""


def supervised(program: str, count: int, folder: pathlib.Path, **variables: str):
    """Starts the supervision of `count` children that run `program`."""
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(count), program],
        env={"PYTHONPATH": str(ROOT), "READY": str(folder), "COUNT": str(count), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ready(folder: pathlib.Path, count: int) -> None:
    """Returns when all children have said that they run."""
    deadline = time.monotonic() + 30
    while len(list(folder.iterdir())) < count:
        assert time.monotonic() < deadline, "the children did not start"
        time.sleep(0.01)


@pytest.mark.nightly
def test_trains_on_four_virtual_devices_without_noise(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    train = ["train", "config.py", "--data.cache", "cache"]
    done = subprocess.run(
        [sys.executable, LAUNCHER, "--virtual-devices", "4", "--", *train],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert "standard: epoch 1" in done.stdout
    (process,) = json.loads((tmp_path / "run" / "run.json").read_text())["processes"]
    assert len(process["devices"]) == 4


def test_exit_code_is_the_commands(tmp_path):
    done = subprocess.run(
        [sys.executable, LAUNCHER, "--", "trian"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "did you mean train?" in done.stderr


def test_one_process_keeps_its_environment():
    before = {"XLA_FLAGS": "--xla_dump_to=/x", "HOME": "/h"}
    assert local.environments(before) == [before]


def test_other_xla_flags_stay():
    before = {"XLA_FLAGS": f"--xla_dump_to=/x {local.FLAG}=8", "HOME": "/h"}
    (after,) = local.environments(before, devices=4)
    assert after["XLA_FLAGS"].split() == ["--xla_dump_to=/x", f"{local.FLAG}=4"]
    assert after["JAX_PLATFORMS"] == "cpu"
    assert "JAX_NUM_PROCESSES" not in after


def test_processes_know_of_each_other():
    found = local.environments({"HOME": "/h"}, processes=3, devices=2)
    assert [child["JAX_PROCESS_ID"] for child in found] == ["0", "1", "2"]
    (address,) = {child["JAX_COORDINATOR_ADDRESS"] for child in found}
    host, port = address.split(":")
    assert host == "127.0.0.1"
    assert 1024 <= int(port) < 65536
    for child in found:
        assert child["JAX_NUM_PROCESSES"] == "3"
        assert child["JAX_COORDINATOR_BIND_ADDRESS"] == address
        assert child["XLA_FLAGS"] == f"{local.FLAG}=2"
        assert child["JAX_PLATFORMS"] == "cpu"
        assert child["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] == "gloo"
        assert child["HOME"] == "/h"


def test_gpus_are_shared_out_in_order():
    variables = {"CUDA_VISIBLE_DEVICES": "2,3,GPU-a,GPU-b"}
    gpus = local.visible_gpus(variables)
    found = local.environments(variables, processes=2, gpus=gpus)
    assert [child["CUDA_VISIBLE_DEVICES"] for child in found] == ["2,3", "GPU-a,GPU-b"]
    assert [child["JAX_LOCAL_DEVICE_IDS"] for child in found] == ["0,1", "0,1"]
    assert all("JAX_PLATFORMS" not in child for child in found)


@pytest.mark.parametrize("gpus", [[], ["0", "1", "2"]])
def test_gpus_that_cannot_be_shared_evenly_are_refused(gpus):
    with pytest.raises(ValueError, match=rf"2 cannot share {len(gpus)} visible GPUs"):
        local.environments({}, processes=2, gpus=gpus)


def test_the_driver_lists_gpus_that_nothing_names(tmp_path, monkeypatch):
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    listing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert local.visible_gpus({}) == ["0", "1"]
    listing.write_text("#!/bin/sh\nexit 9\n")
    assert local.visible_gpus({}) == []
    assert local.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_all_that_succeed_are_a_success(tmp_path):
    child = supervised(EXITS, 3, tmp_path, CODES="0 0 0")
    assert child.communicate(timeout=30) == ("", "")
    assert child.returncode == 0


def test_process_0_writes_as_it_is_and_the_others_with_their_number(tmp_path):
    program = "import os, sys; print('out', os.environ['INDEX']); print('err', file=sys.stderr)"
    child = supervised(program, 2, tmp_path)
    out, err = child.communicate(timeout=30)
    assert out == "out 0\n"
    assert sorted(err.splitlines()) == ["[1] err", "[1] out 1", "err"]


def test_the_first_failure_is_the_exit_code_and_the_rest_are_ended(tmp_path):
    child = supervised(WAITS.format(then="if index == 1: sys.exit(3)"), 3, tmp_path)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 3
    assert "process 1 ended with exit code 3" in err
    assert out == "got SIGTERM\n"
    assert "[2] got SIGTERM" in err


def test_a_process_that_heeds_no_sigterm_is_killed(tmp_path):
    deaf = "if index: sys.exit(1)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = supervised(WAITS.format(then=deaf), 2, tmp_path)
    child.communicate(timeout=30)
    assert child.returncode == 1


def test_a_signal_that_ended_a_process_is_told_by_its_exit_code(tmp_path):
    child = supervised("import os; os.kill(os.getpid(), 9)", 1, tmp_path)
    child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_all_processes(number, tmp_path):
    child = supervised(WAITS.format(then=""), 2, tmp_path)
    ready(tmp_path, 2)
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    assert child.returncode == local.PREEMPTED
    assert out == f"got {number.name}\n"
    assert f"[1] got {number.name}" in err


def test_after_a_preempted_process_the_others_may_save(tmp_path):
    saves = "if index: sys.exit(75)\ntime.sleep(1.5)\nprint('saved')\nsys.exit(75)"
    child = supervised(WAITS.format(then=saves), 2, tmp_path)
    out, _ = child.communicate(timeout=30)
    assert child.returncode == local.PREEMPTED
    assert out == "saved\n"


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--virtual-devices 0 -- data",
        "--processes 0 -- data",
        "--processes 2 --virtual-devices 2 -- data",
        "--devices-per-process 2 -- data",
        "--gpus -- data",
        "--processes 2 --devices-per-process 2 --gpus -- data",
        "--processes 2 --gpus -- data",
    ],
)
def test_bad_arguments_are_refused(arguments, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(SystemExit) as caught:
        local.main(arguments.split())
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err


def test_processes_that_compute_on_a_cpu_share_its_cores():
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core cannot be shared")
    environments = [{"JAX_PLATFORMS": "cpu"}, {"JAX_PLATFORMS": "cpu"}]
    for several, index, expected in (
        (environments, 0, cores[0::2]),
        (environments, 1, cores[1::2]),
        (environments[:1], 0, cores),
        ([{}, {}], 0, cores),  # of GPUs
    ):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        try:
            local._share_cores(child, several, index)
            assert sorted(os.sched_getaffinity(child.pid)) == expected
        finally:
            child.kill()
            child.wait()
