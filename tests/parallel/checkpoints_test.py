"""A checkpoint holds the state as it was, and is restored wherever a run goes on."""

import itertools
import json
import os
import subprocess
import sys

import pytest

WAYS = {
    "one device": {"devices": 1},
    "four devices": {"devices": 4},
    "eight devices": {"devices": 8},
    "four shards": {"devices": 4, "fsdp": True},
    "experts and shards": {"devices": 8, "expert": 2, "fsdp": True},
    "pmap in shards": {"devices": 4, "mapping": "pmap", "fsdp": True},
    "pmap, experts apart": {"devices": 4, "mapping": "pmap", "expert": 4},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What came of saving in each way, while training went on, and restoring in every way."""
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    folder = str(tmp_path_factory.mktemp("checkpoints"))
    program = [sys.executable, "-m", "tests.parallel.checkpoints_on_devices", folder]
    done = subprocess.run(
        [*program, json.dumps(list(WAYS.values()))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(WAYS, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_restored_is_the_state_when_the_save_began(found, way):
    assert found[way]["moved"], "training changed nothing meanwhile"
    assert found[way]["restored"][list(WAYS).index(way)] == ""


def test_a_checkpoint_of_any_devices_is_restored_on_any_others(found):
    pairs = itertools.permutations(WAYS, 2)
    wrong = {
        f"{saved} to {read}": found[saved]["restored"][list(WAYS).index(read)]
        for saved, read in pairs
    }
    assert len(wrong) == len(WAYS) * (len(WAYS) - 1)
    assert not {pair: what for pair, what in wrong.items() if what}
