"""A checkpoint holds the state as it was, and is restored wherever a run goes on."""

import itertools
import json
import os
import subprocess
import sys

import pytest

from tests.night import at_night

WAYS = {
    "one device": {"devices": 1},
    "four devices": {"devices": 4},
    "eight devices": {"devices": 8},
    "four shards": {"devices": 4, "fsdp": True},
    "experts and shards": {"devices": 8, "expert": 2, "fsdp": True},
    "pmap in shards": {"devices": 4, "mapping": "pmap", "fsdp": True},
    "pmap, experts apart": {"devices": 4, "mapping": "pmap", "expert": 4},
}


BY_DAY = ("one device", "experts and shards", "pmap in shards")


def saved_and_restored(ways, folder):
    """What came of saving in each way, while training went on, and restoring in every way."""
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    program = [sys.executable, "-m", "tests.parallel.checkpoints_on_devices", str(folder)]
    done = subprocess.run(
        [*program, json.dumps([WAYS[way] for way in ways])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(ways, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("ways", [BY_DAY, at_night(tuple(WAYS))], ids=["some", "all"])
def test_a_save_is_the_state_when_it_began_and_is_restored_on_any_devices(ways, tmp_path):
    found = saved_and_restored(ways, tmp_path)
    still = [way for way in ways if not found[way]["moved"]]
    assert not still, "training changed nothing meanwhile"
    pairs = itertools.product(ways, repeat=2)
    wrong = {
        f"{saved} to {read}": found[saved]["restored"][ways.index(read)] for saved, read in pairs
    }
    assert len(wrong) == len(ways) ** 2
    assert not {pair: what for pair, what in wrong.items() if what}
