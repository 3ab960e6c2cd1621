import json
import pathlib
import subprocess
import sys

import pytest

from launch import local

LAUNCHER = pathlib.Path(local.__file__)
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


def test_other_xla_flags_stay():
    before = {"XLA_FLAGS": f"--xla_dump_to=/x {local.FLAG}=8", "HOME": "/h"}
    after = local.environment(before, 4)
    assert after["XLA_FLAGS"].split() == ["--xla_dump_to=/x", f"{local.FLAG}=4"]
    assert after["JAX_PLATFORMS"] == "cpu"
    assert local.environment(before, None) == before


@pytest.mark.parametrize("arguments", [[], ["--virtual-devices", "0", "--", "data"]])
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        local.main(arguments)
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err
