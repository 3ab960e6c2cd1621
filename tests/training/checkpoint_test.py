"""What is left of a run that was killed, copied in part, or whose disk was full."""

import errno
import os
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxmoe.training import Checkpoints, DamagedCheckpointError, adamw, init_state


@pytest.fixture(scope="module")
def state(mixture, params):
    return init_state(params, adamw(1e-2, 1.0))


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """A run with a latest and a best checkpoint; to be copied, not changed."""
    run = tmp_path_factory.mktemp("saved")
    for which, step in (("latest", 7), ("best", 5)):
        Checkpoints(run).save(which, step, state, {"step": step})
    return run


@pytest.fixture
def run(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def test_saving_a_step_again_is_no_error_and_keeps_it(state, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for _ in range(2):
        checkpoints.save("best", 5, state, {"epoch": 1})
    restored, position = Checkpoints(tmp_path).restore("best", state)
    assert position == {"epoch": 1}
    for a, b in zip(*map(jax.tree.leaves, (restored, state)), strict=True):
        np.testing.assert_array_equal(a, b)


def cut(step):
    for file in step.rglob("d/*"):
        os.truncate(file, file.stat().st_size // 2)


def empty(step):
    shutil.rmtree(step)
    step.mkdir()


DAMAGES = {
    "data cut in half": cut,
    "manifests gone": lambda step: [file.unlink() for file in step.rglob("manifest.ocdbt")],
    "empty folder": empty,
    "position gone": lambda step: shutil.rmtree(step / "position"),
    "state gone": lambda step: shutil.rmtree(step / "state"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_line_that_names_the_run_and_the_ways_out(run, state, damage):
    DAMAGES[damage](run / "checkpoints" / "latest" / "7")
    with pytest.raises(DamagedCheckpointError) as raised:
        Checkpoints(run).restore("latest", state)
    line = str(raised.value)
    assert line.startswith(f"{run}: its checkpoint is damaged: latest, of step 7, cannot be read")
    assert "--checkpoint best" in line
    assert f"remove {run}/checkpoints/latest" in line
    assert len(line.splitlines()) == 1
    assert len(line) < 500 + 3 * len(str(run))
    assert Checkpoints(run).restore("best", state)[1] == {"step": 5}


def test_a_damaged_checkpoint_without_another_has_no_such_way_out(run, state):
    shutil.rmtree(run / "checkpoints" / "best")
    empty(run / "checkpoints" / "latest" / "7")
    with pytest.raises(DamagedCheckpointError) as raised:
        Checkpoints(run).position("latest")
    assert "--checkpoint" not in str(raised.value)


def test_a_checkpoint_that_training_replaced_meanwhile_is_read_anew(run, state, monkeypatch):
    """The reader of a run that is still training opens a step that is then removed."""
    checkpoints, whole = Checkpoints(run), ocp.CheckpointManager.restore

    def replaced(manager, step, **options):
        if step == 7:
            Checkpoints(run).save("latest", 9, state, {"step": 9})
        return whole(manager, step, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", replaced)
    assert checkpoints.position("latest") == {"step": 9}


def test_a_full_disk_keeps_the_checkpoint_before_and_says_so(run, state, monkeypatch):
    def full(manager, step, **options):
        (run / "checkpoints" / "latest" / "8.orbax-checkpoint-tmp").mkdir()
        words = "RESOURCE_EXHAUSTED: Error writing d/1: No space left on device [os_error_code=28]"
        raise ValueError(words)

    with monkeypatch.context() as patched:
        patched.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(OSError, match="No space left") as raised:
            Checkpoints(run).save("latest", 8, state, {"step": 8})
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(run))
    assert (
        "latest checkpoint of step 8 was not saved, the latest of step 7 is kept"
        in raised.value.strerror
    )
    assert os.listdir(run / "checkpoints" / "latest") == ["7"]
    assert Checkpoints(run).restore("latest", state)[1] == {"step": 7}
    Checkpoints(run).save("latest", 8, state, {"step": 8})
    assert Checkpoints(run).position("latest") == {"step": 8}


def test_a_checkpoint_that_cannot_fit_is_not_begun(run, state, monkeypatch):
    bytes_of_state = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    usage = shutil.disk_usage(run)._replace(free=bytes_of_state)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    monkeypatch.setattr(ocp.CheckpointManager, "save", None)
    with pytest.raises(OSError, match="step 8 was not saved, the latest of step 7 is kept"):
        Checkpoints(run).save("latest", 8, state, {"step": 8})


def test_what_a_killed_save_left_is_removed_by_the_next(run, state):
    left_over = run / "checkpoints" / "latest" / "8.orbax-checkpoint-tmp"
    (left_over / "state").mkdir(parents=True)
    checkpoints = Checkpoints(run)
    assert checkpoints.position("latest") == {"step": 7}
    assert left_over.is_dir(), "reading changes nothing"
    checkpoints.save("latest", 8, state, {"step": 8})
    assert os.listdir(run / "checkpoints" / "latest") == ["8"]


def test_an_error_that_is_not_the_disks_stays_what_it_is(run, state, monkeypatch):
    def broken(manager, step, **options):
        raise ValueError("a bug")

    monkeypatch.setattr(ocp.CheckpointManager, "save", broken)
    with pytest.raises(ValueError, match=r"^a bug$"):
        Checkpoints(run).save("latest", 8, state, {"step": 8})
