"""A checkpoint that a disk, a copy or a person damaged is never read as if it were whole."""

import gc
import os
import random
import shutil

import jax
import numpy as np
import pytest

from jaxmoe.training import Checkpoints, DamagedCheckpointError, adamw, init_state
from tests.night import at_night

# Threads of Orbax that were still reading a damaged array complain when they are thrown away.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
FLIPS = 40
POSITION = {"step": 9, "seconds": 12.5, "loader": {"next": 17}, "finished": False}


@pytest.fixture(autouse=True)
def throw_away():
    """Lets them complain now, and not in the middle of another test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def states(mixture, params):
    """Two states, of which every leaf differs."""
    state = init_state(params, adamw(1e-2, 1.0))
    return {step: jax.tree.map(lambda leaf, step=step: leaf + step, state) for step in (7, 9)}


@pytest.fixture(scope="module")
def saved(states, tmp_path_factory):
    """A run with a latest checkpoint and one before it; to be copied, not changed."""
    run = tmp_path_factory.mktemp("saved")
    for step, state in states.items():
        Checkpoints(run, keep=2).save("latest", step, state, {**POSITION, "step": step})
    return run


@pytest.fixture
def run(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def is_state(found, state) -> bool:
    leaves = zip(*map(jax.tree.leaves, (found, state)), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves)


def read(run, states, capsys) -> str:
    """Reads a damaged latest checkpoint; returns what came of it, and fails where it is wrong."""
    capsys.readouterr()
    try:
        state, position = Checkpoints(run).restore("latest", states[9])
    except DamagedCheckpointError as error:
        return "an error" if "of step 9, cannot be read" in str(error) else str(error)
    step, warned = position["step"], capsys.readouterr().err
    # A flipped bit in the name of a field adds one that nobody reads.
    assert position.items() >= {**POSITION, "step": step}.items(), "a wrong position"
    assert is_state(state, states[step]), "wrong numbers, in silence"
    if step == 9:
        assert warned == ""
        return "the right numbers"
    assert len(warned.splitlines()) == 1
    assert warned.startswith(f"jaxmoe: {run}: its latest checkpoint of step 9 is damaged")
    assert "the one before it, of step 7, is used" in warned
    return "the one before"


def flips(folder, count, seed):
    """Yields random bits of a folder's files: file, place, bit. Each file has its turn."""
    draw = random.Random(seed)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.stat().st_size]
    for number in range(count):
        file = files[number % len(files)]
        yield file, draw.randrange(file.stat().st_size), draw.randrange(8)


def flip(file, place, bit):
    raw = bytearray(file.read_bytes())
    raw[place] ^= 1 << bit
    file.write_bytes(raw)


@pytest.mark.parametrize("before", [True, at_night(False)], ids=["one before", "none before"])
def test_no_flipped_bit_is_read_as_if_nothing_were(run, states, before, capsys):
    latest, found = run / "checkpoints" / "latest", []
    if not before:
        shutil.rmtree(latest / "7")
    for file, place, bit in flips(latest / "9", FLIPS, seed=before):
        flip(file, place, bit)
        found.append(read(run, states, capsys))
        flip(file, place, bit)
    assert len(found) == FLIPS
    damaged = "the one before" if before else "an error"
    assert set(found) == {damaged, "the right numbers"}
    print(f"{FLIPS} bits: {found.count(damaged)} found, the others say nothing of the numbers")
    assert read(run, states, capsys) == "the right numbers"


def test_every_bit_of_the_position_counts(run, states, capsys):
    """Where a run and its loader stand is a few digits, and another digit is a number as well."""
    (file,) = [
        file
        for file in (run / "checkpoints/latest/9/position").iterdir()
        if b'"seconds"' in file.read_bytes()
    ]
    raw = file.read_bytes()
    places = [raw.index(b"9"), raw.index(b"12.5"), raw.index(b"17"), raw.index(b"seconds")]
    for place in places:
        flip(file, place, 0)
        assert read(run, states, capsys) == "the one before"
        assert Checkpoints(run).position("latest")["step"] == 7
        flip(file, place, 0)


@pytest.mark.parametrize("what", ["truncated", "deleted"])
def test_no_missing_part_is_read_as_if_it_were_there(run, states, what, capsys):
    latest, found = run / "checkpoints" / "latest", {}
    for file in sorted((latest / "9").rglob("*")):
        if not file.is_file() or not file.stat().st_size:
            continue
        raw = file.read_bytes()
        if what == "deleted":
            file.unlink()
        else:
            os.truncate(file, len(raw) // 2)
        found[str(file.relative_to(latest / "9"))] = read(run, states, capsys)
        file.write_bytes(raw)
    assert {"the one before"} <= set(found.values()) <= {"the one before", "the right numbers"}
    # Orbax merges what each process wrote, and leaves that, too.
    used = [how for name, how in found.items() if name.startswith("state/d/")]
    assert set(used) == {"the one before"}


def test_a_damaged_latest_is_set_aside_by_whoever_goes_on_to_save(run, states, capsys):
    latest = run / "checkpoints" / "latest"
    (data,) = [max((latest / "9").rglob("d/*"), key=lambda file: file.stat().st_size)]
    os.truncate(data, data.stat().st_size // 2)
    assert read(run, states, capsys) == "the one before"
    assert sorted(os.listdir(latest)) == ["7", "9"], "reading changes nothing"
    checkpoints = Checkpoints(run, keep=2)
    state, position = checkpoints.restore("latest", states[9], set_aside=True)
    assert is_state(state, states[7])
    assert position == {**POSITION, "step": 7}
    warned = capsys.readouterr().err
    assert len(warned.splitlines()) == 1
    assert f"is in {run}/checkpoints/damaged now; the one before it, of step 7, is used" in warned
    assert os.listdir(latest) == ["7"]
    assert os.listdir(run / "checkpoints" / "damaged") == ["latest-9"]
    checkpoints.save("latest", 9, states[9], POSITION)
    assert read(run, states, capsys) == "the right numbers"


def test_two_damaged_ones_are_passed_over(run, states, capsys):
    Checkpoints(run, keep=3).save("latest", 11, states[9], {**POSITION, "step": 11})
    for step in ("9", "11"):
        shutil.rmtree(run / "checkpoints" / "latest" / step / "state")
    state, position = Checkpoints(run).restore("latest", states[9], set_aside=True)
    assert is_state(state, states[7])
    assert position["step"] == 7
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert sorted(os.listdir(run / "checkpoints" / "damaged")) == ["latest-11", "latest-9"]


@pytest.mark.parametrize(
    ("keep", "keep_every", "kept", "resumed"),
    [
        *((1, None, [7], False), (2, 2, [2, 4, 6, 7], False), (1, 3, [3, 6, 7], True)),
        *(at_night(1, None, [7], True), at_night(2, 2, [2, 4, 6, 7], True)),
        *(at_night(1, 3, [3, 6, 7], False), at_night(3, None, [5, 6, 7], False)),
        at_night(3, None, [5, 6, 7], True),
    ],
)
def test_what_is_kept_is_what_the_options_say(states, tmp_path, keep, keep_every, kept, resumed):
    checkpoints = Checkpoints(tmp_path, keep=keep, keep_every=keep_every)
    for step in range(1, 8):
        checkpoints.begin("latest", step, states[7], {"step": step})
        if resumed:
            checkpoints.wait()
            checkpoints.close()
    checkpoints.wait()
    checkpoints.close()
    assert sorted(map(int, os.listdir(tmp_path / "checkpoints" / "latest"))) == kept
