"""Gradient reductions in a compiled J-TLAT step on 4 virtual devices, and where they stand."""

import json
import os
import subprocess
import sys

from jaxmoe.benchmarks.row import Row, counted

_DEVICES = 4
_PHASES = 3
_METRICS = 16  # at most so many numbers


def run() -> list[Row]:
    """Two rows, counted in a child process: JAX has as many devices as it started with."""
    flags = f"--xla_force_host_platform_device_count={_DEVICES}"
    child = subprocess.run(
        [sys.executable, "-m", "jaxmoe.benchmarks.collectives"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(child.stdout.splitlines()[-1])
    detail = f"all-reduces of the J-TLAT step compiled for {_DEVICES} virtual CPU devices"
    return [
        counted(
            "gradient reductions / phases of the step", found["reductions"] / _PHASES, 1, detail
        ),
        counted("collectives in attack loops", found["in_loops"], 0, detail),
    ]


def count() -> dict[str, int]:
    """Gradient reductions of the step, and collectives in what it calls: loops and branches."""
    import math
    import re

    import jax
    import jax.numpy as jnp

    from jaxmoe.attacks import AttackSettings
    from jaxmoe.benchmarks.subjects import linear_clips, linear_mixture
    from jaxmoe.parallel import make_parallel
    from jaxmoe.threat import ThreatModel
    from jaxmoe.training import (
        Batch,
        RecipeOptions,
        adamw,
        init_state,
        make_train_step,
    )
    from jaxmoe.training.recipes import j_tlat

    mixture, params = linear_mixture()
    optimizer, parallel = adamw(1e-2, 1.0), make_parallel()
    step = make_train_step(
        mixture,
        j_tlat,
        RecipeOptions(attack=AttackSettings(steps=2)),
        ThreatModel(),
        optimizer,
        lambda _: jnp.float32(1e-3),
        lambda _: jnp.float32(8 / 255),
        shards=parallel.shards(params),
    )
    state = init_state(params, optimizer)
    numbers = jnp.zeros((_DEVICES, 2), jnp.int32)
    clips = linear_clips(_DEVICES, 2)
    batch = jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), Batch(clips, numbers, numbers)
    )
    mapped = parallel.map_step(step, state)
    text = mapped.lower(state, batch, jax.random.key(0)).compile().as_text()
    entry = text[text.index("\nENTRY ") :]
    reduced = re.findall(r" = (.*) all-reduce(?:-start)?\(", text)
    at_the_top = re.findall(r" = (.*) all-reduce(?:-start)?\(", entry)
    # A gradient has many numbers; a reduction of few is of metrics.
    sizes = [re.findall(r"\[([\d,]+)\]", shapes) for shapes in at_the_top]
    sizes = [[math.prod(map(int, size.split(","))) for size in each] for each in sizes]
    of_gradients = [each for each in sizes if max(each, default=1) > _METRICS]
    return {"reductions": len(of_gradients), "in_loops": len(reduced) - len(at_the_top)}


if __name__ == "__main__":
    print(json.dumps(count()))
