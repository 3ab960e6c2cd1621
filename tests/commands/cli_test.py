"""What holds for every command: help, bad input in one line, settings of the process."""

import importlib.metadata
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxmoe.cli import COMMANDS, main
from tests.commands.tiny import refused


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_command_starts_with_huge_pages_unless_the_user_has_a_setting():
    script = """
import os, sys
from jaxmoe.cli import main
sys.argv[1:] = ["data", "--help"]
main()
print(os.environ["GLIBC_TUNABLES"])
"""

    def tunables(**given):
        unset = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=unset | given, capture_output=True, text=True
        )
        return done.stdout.splitlines()[-1]

    assert tunables() == "glibc.malloc.hugetlb=1"
    assert tunables(GLIBC_TUNABLES="glibc.malloc.arena_max=2") == "glibc.malloc.arena_max=2"


def test_a_command_asks_for_wide_matmuls_and_keeps_the_users_flags():
    script = """
import os, sys
from jaxmoe.cli import main
sys.argv[1:] = ["data", "--help"]
main()
import jax
jax.numpy.ones(3)
print(os.environ["XLA_FLAGS"])
"""
    given = os.environ | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True
    )
    flags = done.stdout.splitlines()[-1].split()
    assert "--xla_cpu_multi_thread_eigen=false" in flags
    assert len(flags) == (2 if importlib.metadata.version("jaxlib").startswith("0.10.") else 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trian config.py", ["trian", "train"]),
        ("train", ["CONFIG.py", "--help"]),
        ("train gone.py", ["CONFIG", "gone.py"]),
        ("data", ["CONFIG.py", "--name"]),
        ("data --nam ucf101", ["data.nam", "--data.name"]),
        ("evaluate", ["RUN"]),
        ("evaluate gone", ["run", "gone"]),
        ("sweep gone", ["run", "gone"]),
        ("transfer gone", ["config.json", "gone"]),
        ("transfer gone gone", ["gone", "2 times"]),
        ("transfer gone lost", ["run", "gone"]),
        ("quickstart --folder x", ["--folder", "--directory"]),
        ("benchmark --only atack-loop", ["atack-loop", "attack-loop"]),
        ("benchmark --output gone/x.json", ["--output", "gone"]),
    ],
)
def test_other_bad_input_is_one_line(arguments, said, folder, capsys):
    line = refused(arguments, folder, capsys)
    for part in said:
        assert part in line


def test_help_names_every_command(capsys):
    assert main([]) == 0
    overview = capsys.readouterr().out
    for command in COMMANDS:
        assert command in overview
        assert main([command, "--help"]) == 0
        output = capsys.readouterr()
        assert output.out.startswith(f"usage: jaxmoe {command}")
        assert output.err == ""


def test_another_librarys_value_error_keeps_its_traceback(folder, monkeypatch):
    def broken(*_, **__):
        return np.zeros(3).reshape(2)

    monkeypatch.setattr("jaxmoe.run.train", broken)
    with pytest.raises(ValueError, match="reshape"):
        main(["train", "config.py"])
