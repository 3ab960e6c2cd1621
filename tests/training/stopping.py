"""Starts a tiny run as a user does, stops it at a chosen moment, and compares it with another."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxmoe.training import Checkpoints, read_metrics

ROOT = pathlib.Path(__file__).parents[2]
PREEMPTED = 75
DEADLINE = 600.0  # seconds; a machine that others use, too, is slow
STEPS_PER_EPOCH = 5
CONFIG = """
from jaxmoe.attacks import AttackSettings
from jaxmoe.config import *

def config():
    return Experiment(
        data=SyntheticActionsConfig(
            frames=4,
            height=8,
            train_clips={clips},
            validation_clips=10,
            test_clips=10,
            cache={cache!r},
        ),
        expert=ResNetConfig(width=4, stage_sizes=(1,)),
        router=PooledRouterConfig(),
        mixture=MixtureConfig(experts=2, balance_weight=0.1),
        attack=AttackSettings(steps=2),
        recipe={recipe},
        training=TrainingConfig(epochs={epochs}, standard_epochs={clean_epochs}, batch_size=8),
        run=RunConfig(
            directory="run",
            checkpoint_steps=3,
            checkpoint_every=100,
            validate_every={validate_every},
            log_every=1,
        ),
        evaluation=EvaluationConfig(checkpoint="latest"),
    )
"""


def write_config(
    folder: pathlib.Path,
    *,
    epochs: int,
    recipe: str = "ATMConfig()",
    clean_epochs: int = 0,
    clips: int = 8 * STEPS_PER_EPOCH,
    validate_every: int = 2,
) -> None:
    """Writes `config.py` of a tiny experiment, in batches of 8 clips."""
    text = CONFIG.format(
        cache=str(folder / "cache"),
        epochs=epochs,
        recipe=recipe,
        clean_epochs=clean_epochs,
        clips=clips,
        validate_every=validate_every,
    )
    (folder / "config.py").write_text(text)


def start(run: pathlib.Path, launcher: Sequence[str] = ()) -> subprocess.Popen:
    """Starts `jaxmoe train` beside its `config.py`; with options, through `launch/local.py`."""
    program = ["-m", "jaxmoe"]
    if launcher:
        program = [str(ROOT / "launch" / "local.py"), *launcher, "--"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        # Every program, however small: a start is most of what these tests wait for.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    }
    return subprocess.Popen(
        [sys.executable, *program, "train", "config.py", "--run.directory", run.name],
        cwd=run.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Returns what a run that has to end well wrote to standard error."""
    errors = end(process)
    assert process.returncode == 0, errors[-2000:]
    return errors


def end(process: subprocess.Popen) -> str:
    """Waits for the end of a process; returns what it wrote to standard error."""
    try:
        return process.communicate(timeout=DEADLINE)[1]
    finally:
        stop_all(process)


def stop_all(process: subprocess.Popen) -> None:
    """Kills what is left of a process and of those that it started."""
    if process.poll() is None:
        for child in children(process):
            _kill(child)
        process.kill()
        process.wait()


def wait_until(reached: Callable[[], bool], process: subprocess.Popen) -> bool:
    """Waits for a moment of a run; returns whether the process still runs then."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and not reached():
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.002)
    return process.poll() is None


def children(process: subprocess.Popen) -> list[int]:
    """Returns the processes of a launcher, by their numbers; none where it has not started all."""
    try:
        found = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        by_number = {_number(int(child)): int(child) for child in found.split()}
    except OSError:
        return []
    return [by_number[number] for number in sorted(by_number) if number is not None]


def _number(child: int) -> int | None:
    variables = pathlib.Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
    given = [name for name in variables if name.startswith(b"JAX_PROCESS_ID=")]
    return int(given[0].partition(b"=")[2]) if given else None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def last_step(run: pathlib.Path) -> int:
    """Returns the last step of a run's metrics, or 0."""
    return max((line["step"] for line in read_metrics(run)), default=0)


def being_saved(run: pathlib.Path) -> int:
    """Returns the largest step whose checkpoint is not finished, or 0."""
    found = (run / "checkpoints" / "latest").glob("*.orbax-checkpoint-tmp*")
    return max((int(folder.name.partition(".")[0]) for folder in found), default=0)


def check_same(run: pathlib.Path, whole: pathlib.Path, steps: int) -> None:
    """Compares two runs: every bit of the params, every line of the metrics, and the position."""
    lines = read_metrics(run)
    assert [line["step"] for line in lines if "epoch" not in line] == list(range(1, steps + 1))
    assert (run / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    mine, other = (Checkpoints(folder).position("latest") for folder in (run, whole))
    assert mine.pop("finished")
    assert mine | {"seconds": 0, "finished": True} == other | {"seconds": 0}
    for a, b in zip(params_of(run), params_of(whole), strict=True):
        np.testing.assert_array_equal(a.view("uint32"), b.view("uint32"))


def params_of(run: pathlib.Path) -> list[np.ndarray]:
    """Returns each leaf of a run's latest params."""
    from jaxmoe.runs.run import load

    return [np.asarray(leaf) for leaf in jax.tree.leaves(load(run, "latest").params)]
