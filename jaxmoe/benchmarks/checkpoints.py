"""Time that a run spends in saving, against the run: a checkpoint every 100 steps."""

import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp

from jaxmoe.benchmarks.row import Row, counted
from jaxmoe.benchmarks.subjects import clips, even_mixture, scale
from jaxmoe.parallel import make_parallel
from jaxmoe.threat import ThreatModel
from jaxmoe.training import (
    Batch,
    Checkpoints,
    RecipeOptions,
    adamw,
    init_state,
    make_train_step,
)
from jaxmoe.training.recipes.standard import standard

EVERY, SAVES = 100, 3
BAR = 0.02


def run() -> list[Row]:
    """One row: clean steps, the quickest there are, with a save behind every hundredth."""
    mixture, _, _ = even_mixture(4)
    x, y = clips(16 * scale(), 8, 32)
    parallel, optimizer = make_parallel(jax.devices()[:1]), adamw(1e-2, 1.0)
    params = mixture.init(jax.random.key(0), x[:1])
    like = jax.eval_shape(lambda p: init_state(p, optimizer), params)
    step = make_train_step(
        mixture,
        standard,
        RecipeOptions(),
        ThreatModel(),
        optimizer,
        lambda _: jnp.float32(1e-3),
        lambda _: jnp.float32(0),
        shards=parallel.shards(params),
    )
    batch = Batch(jnp.asarray(x * 255, jnp.uint8), y, jnp.arange(len(y), dtype=jnp.int32))
    state = parallel.make(lambda p: init_state(p, optimizer), params, like)
    key, batch = parallel.everywhere(jax.random.key(1)), parallel.shard(batch)
    mapped, saving = parallel.map_step(step, like), 0.0
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(pathlib.Path(folder), keep=2)
        state, _ = jax.block_until_ready(mapped(state, batch, key))
        checkpoints.begin("latest", 0, state, {})
        checkpoints.wait()
        began = time.perf_counter()
        for number in range(1, SAVES * EVERY + 1):
            state, metrics = mapped(state, batch, key)
            if number % EVERY == 0:
                jax.block_until_ready(metrics)  # the save would wait for it
                start = time.perf_counter()
                checkpoints.begin("latest", number, state, {})
                saving += time.perf_counter() - start
        start = time.perf_counter()
        checkpoints.wait()
        saving += time.perf_counter() - start
        share = saving / (time.perf_counter() - began)
        checkpoints.close()
    millions = sum(leaf.size for leaf in jax.tree.leaves(like)) / 1e6
    detail = (
        f"{SAVES} saves of {millions:.2f} million numbers in {SAVES * EVERY} clean steps of "
        f"{len(y)} clips 8x32x32"
    )
    return [counted("time in checkpoints / time of the run", share, BAR, detail)]
