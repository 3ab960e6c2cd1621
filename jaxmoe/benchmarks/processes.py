"""Training steps of two processes with one device each, against one process with both."""

import json
import os
import socket
import subprocess
import sys
import time

from jaxmoe.benchmarks.row import Row, counted

BAR = 1 / 0.9  # of the seconds: the throughput is at least 0.9 of the other
CLIPS = 32
_STEPS, _REPEATS = 5, 5
_TIMEOUT = 900.0  # seconds for a child to compile and to run


def run() -> list[Row]:
    """One row: medians of seconds a step, measured in child processes."""
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    both = [_start(1, number, **shared, JAX_PROCESS_ID=str(number)) for number in range(2)]
    try:
        apart = max(_seconds(child) for child in both)
    finally:
        for child in both:
            child.kill()
    together = _seconds(_start(2))
    detail = (
        f"an AT-M step on {CLIPS} clips 8x32x32, {_REPEATS} times {_STEPS} steps: {apart:.3f} s in "
        f"two processes, {together:.3f} s in one"
    )
    return [counted("a step of two processes / of one", apart / together, BAR, detail)]


def _start(devices: int, half: int | None = None, **variables: str) -> subprocess.Popen:
    """Starts a child on all cores, or on a half of them, as hosts do not share theirs."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    child = subprocess.Popen(
        [sys.executable, "-m", "jaxmoe.benchmarks.processes"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if half is not None and len(cores) > 1:
        os.sched_setaffinity(child.pid, cores[half::2])
    return child


def _seconds(child: subprocess.Popen) -> float:
    try:
        said, _ = child.communicate(timeout=_TIMEOUT)
    finally:
        child.kill()
    if child.returncode:
        raise RuntimeError(f"a process of the benchmark ended with {child.returncode}")
    return json.loads(said.splitlines()[-1])


def measure() -> float:
    """Returns the median seconds of a step on all devices of all processes."""
    from jaxmoe.parallel import hosts

    hosts.join()

    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxmoe.attacks import AttackSettings
    from jaxmoe.benchmarks.subjects import clips, even_mixture
    from jaxmoe.parallel import make_parallel
    from jaxmoe.threat import ThreatModel
    from jaxmoe.training import Batch, RecipeOptions, adamw, init_state, make_train_step
    from jaxmoe.training.recipes.adversarial import at_m

    mixture, _, _ = even_mixture(4)
    x, y = clips(CLIPS // jax.process_count(), 8, 32)
    parallel, optimizer = make_parallel(), adamw(1e-2, 1.0)
    params = jax.jit(mixture.init)(jax.random.key(0, impl="rbg"), x[:1])
    like = jax.eval_shape(lambda p: init_state(p, optimizer), params)
    step = make_train_step(
        mixture,
        at_m,
        RecipeOptions(attack=AttackSettings(steps=5)),
        ThreatModel(),
        optimizer,
        lambda _: jnp.float32(1e-3),
        lambda _: jnp.float32(8 / 255),
        shards=parallel.shards(params),
    )
    state = parallel.make(lambda p: init_state(p, optimizer), params, like)
    clip = np.asarray(x * 255, np.uint8)
    batch = parallel.shard(Batch(clip, np.asarray(y), np.arange(len(y), dtype=np.int32)))
    key, mapped = parallel.everywhere(jax.random.key(1)), parallel.map_step(step, like)
    seconds = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        for _ in range(_STEPS):
            # Devices of a CPU share its threads: two steps in flight may block each other.
            state, _ = jax.block_until_ready(mapped(state, batch, key))
        seconds.append((time.perf_counter() - start) / _STEPS)
    return float(np.median(seconds[1:]))  # the first compiles


if __name__ == "__main__":
    print(json.dumps(measure()))
