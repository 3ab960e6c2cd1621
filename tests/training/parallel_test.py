"""A step under pmap on four virtual devices against one device, in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, re, sys
import jax, numpy as np, optax
from jaxmoe.attacks import AttackSettings
from jaxmoe.parallel import AXIS, Parallel
from jaxmoe.threat import ThreatModel
from jaxmoe.config import RECIPES
from jaxmoe.training import RecipeOptions, adamw, init_state, make_train_step, make_validate
from tests.training.conftest import tiny_batch, tiny_mixture

mixture = tiny_mixture()
params = mixture.init(jax.random.key(0), None)
optimizer = adamw(1e-2, 1.0)
result = {"devices": len(jax.devices())}
few = RecipeOptions(AttackSettings(steps=3), balance_weight=0.3)
kept = few._replace(balance="v-moe", router_noise=0.25, route_weight=1.0, attacked_route="clean")
RUNS = {"standard": ("standard", few), "j_tlat": ("j_tlat", few), "kept": ("at_m", kept)}
for name, (recipe, options) in RUNS.items():
    step = lambda axis: make_train_step(
        mixture, RECIPES.make(recipe).phases, options, ThreatModel("linf", 0.1), optimizer,
        optax.constant_schedule(1e-2), optax.constant_schedule(0.1), axis_name=axis,
    )
    ends = []
    for devices in (jax.devices()[:1], jax.devices()):
        parallel = Parallel(devices)
        state = parallel.replicate(init_state(params, optimizer))
        shards = parallel.shard(tiny_batch(16))
        mapped = parallel.map(step(AXIS)).lower(state, shards, jax.random.key(7)).compile()
        for i in range(3):
            shards = parallel.shard(tiny_batch(16, seed=i))
            state, metrics = mapped(state, shards, jax.random.key(7))
        ends.append((parallel.first(state).params, parallel.first(metrics)))
    result[name] = max(
        float(np.max(np.abs(a - b)) / (1e-6 + np.max(np.abs(b))))  # of a whole leaf
        for a, b in zip(*map(jax.tree.leaves, ends), strict=True)
    )
    hlo = mapped.as_text()
    bodies = [b for b in re.split(r"\\n(?=%|ENTRY)", hlo) if "while" in b.split("\\n")[0]]
    result[name + "/loops"] = len(re.findall(r" while\\(", hlo))
    result[name + "/in_loops"] = sum("all-reduce" in b for b in bodies)
seen = {}

def validation(parallel):
    def apply(params, x):
        seen[parallel.count] = max(len(x), seen.get(parallel.count, 0))
        return mixture.apply(params, x)

    judge = make_validate(
        mixture._replace(apply=apply), ThreatModel("linf", 0.1), AttackSettings(steps=3),
        parallel, adversarial=True,
    )
    clips = tiny_batch(16, seed=9)._asdict() | {"valid": np.arange(16) < 13}
    return judge(parallel.replicate(params), [clips])

one, four = (validation(Parallel(devices)) for devices in (jax.devices()[:1], jax.devices()))
result["validation"] = one, four
result["clips at once"] = [seen[1], seen[4]]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def figures():
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("run", ["standard", "j_tlat", "kept"])
def test_four_devices_equal_one_on_the_same_global_batch(figures, run):
    assert figures["devices"] == 4
    assert figures[run] <= 1e-5, figures


def test_validation_holds_a_devices_share_of_a_batch_and_says_the_same(figures):
    assert figures["clips at once"] == [16, 4]
    one, four = figures["validation"]
    np.testing.assert_allclose(one, four, rtol=1e-6)
    assert 0 < one[0] < 1, "a figure that padding or an order could change"


def test_attack_loops_hold_no_collective(figures):
    assert figures["j_tlat/loops"] >= 3
    assert figures["j_tlat/in_loops"] == 0
