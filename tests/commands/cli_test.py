"""What holds for every command: help, bad input in one line, settings of the process."""

import errno
import os
import subprocess
import sys

import jax
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


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
@pytest.mark.parametrize("failing", ["execv", "stdin"])
def test_a_command_that_cannot_be_started_anew_goes_on_as_it_is(failing):
    script = """
import os, sys
sys.argv[1:] = ["data", "--help"]
if {fail}:
    def execv(*_):
        raise OSError(7, "Argument list too long")
    os.execv = execv
from jaxmoe.cli import main
main()
print("GLIBC_TUNABLES" in os.environ)
""".format(fail=failing == "execv")
    unset = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    how = {"execv": (["-c", script], None), "stdin": ([], script)}
    arguments, standard_input = how[failing]
    done = subprocess.run(
        [sys.executable, *arguments],
        env=unset,
        capture_output=True,
        text=True,
        input=standard_input,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: jaxmoe data")
    assert done.stdout.splitlines()[-1] == "False"


def test_a_user_without_a_home_has_no_cache_of_programs_and_is_told_of_that_of_data(
    folder, monkeypatch, capsys
):
    def nobody(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("JAXMOE_CACHE")
    monkeypatch.setattr("pathlib.Path.expanduser", nobody)
    line = refused("train config.py", folder, capsys)
    assert line.startswith("jaxmoe: data.cache: ~/.cache/jaxmoe/datasets needs a home folder")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "run"),
            2,
            "run: No space left on device; make room",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "run"), 2, "run: Permission denied"),
        (FileNotFoundError("run: no config.json"), 2, "run: no config.json"),
        (
            MemoryError("Unable to allocate 9 TiB"),
            2,
            "out of memory: Unable to allocate 9 TiB; a smaller --training.batch-size, or model, ",
        ),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes."),
            2,
            "out of memory: RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.; a smaller",
        ),
    ],
)
def test_what_a_machine_has_too_little_of_is_one_line(
    error, code, said, folder, monkeypatch, capsys
):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("jaxmoe.runs.run.train", broken)
    assert main(["train", "config.py"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jaxmoe: {said}")


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


def test_no_help_waits_for_jax():
    """An import of JAX alone is a second; NumPy is a tenth of one."""
    helps = "; ".join(f"main([{name!r}, '--help'])" for name in COMMANDS)
    script = (
        f"import sys; from jaxmoe.cli import main; {helps}; "
        "print([m for m in ('jax', 'numpy', 'flax', 'tensorflow_datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


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

    monkeypatch.setattr("jaxmoe.runs.run.train", broken)
    with pytest.raises(ValueError, match="reshape"):
        main(["train", "config.py"])


@pytest.mark.parametrize("command", ["certify run", "data config.py"])
def test_ctrl_c_is_one_line_where_nothing_is_kept(command, folder, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxmoe.runs.run.load", stop)
    monkeypatch.setattr("jaxmoe.data.dataset.load_dataset", stop)
    assert main(command.split()) == 130
    assert capsys.readouterr().err == "jaxmoe: stopped; nothing of it is kept\n"
