"""Saves states while they train on, and restores them on other devices; run by a test."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import RECIPES
from jaxmoe.parallel import Parallel, make_parallel
from jaxmoe.threat import ThreatModel
from jaxmoe.training import (
    Checkpoints,
    RecipeOptions,
    adamw,
    fill_up,
    init_state,
    make_train_step,
    split_experts,
)
from tests.training.conftest import tiny_batch, tiny_mixture

MIXTURE = tiny_mixture()
OPTIMIZER = adamw(1e-2, 1.0)
PARAMS = MIXTURE.init(jax.random.key(0), None)
LIKE = jax.eval_shape(lambda params: init_state(params, OPTIMIZER), PARAMS)


def main() -> None:
    """Reads a folder and cases from the command line, and prints what came of each pair."""
    folder, cases = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
    ways = [make_way(**case) for case in cases]
    found = []
    for number, way in enumerate(ways):
        run = folder / str(number)
        saved, last = save_while_it_trains(way, run)
        found.append(
            {
                "moved": differs(saved, last),
                "restored": [restore(other, run, saved) for other in ways],
            }
        )
    print(json.dumps(found))


def make_way(devices, mapping="mesh", **how) -> Parallel:
    """Returns one way to spread."""
    return make_parallel(jax.devices()[:devices], mapping=mapping, **how)


def save_while_it_trains(parallel: Parallel, run: pathlib.Path):
    """Saves after two steps and trains on meanwhile; returns the state then, and the last one."""
    step = make_train_step(
        split_experts(MIXTURE, parallel),
        RECIPES.make("standard").phases,
        RecipeOptions(AttackSettings(steps=1)),
        ThreatModel("linf", 0.1),
        OPTIMIZER,
        optax.constant_schedule(1e-2),
        optax.constant_schedule(0.1),
        shards=parallel.shards(PARAMS),
    )
    mapped = parallel.map_step(step, LIKE)
    state = parallel.make(lambda params: init_state(params, OPTIMIZER), PARAMS, LIKE)
    key = parallel.everywhere(jax.random.key(7))
    checkpoints = Checkpoints(run)

    def train(state, steps):
        for number in steps:
            batch = fill_up(tiny_batch(16, number)._asdict(), parallel.local_count)
            state, _ = mapped(state, parallel.shard(batch), key)
        return state

    state = train(state, range(2))
    saved = copied(parallel, state)
    checkpoints.begin("latest", 2, parallel.collect(state, LIKE), {"step": 2})
    state = train(state, range(2, 8))
    # What frees memory is soon written over.
    jax.block_until_ready([jnp.full(leaf.shape, np.nan) for leaf in jax.tree.leaves(LIKE)])
    checkpoints.wait()
    checkpoints.close()
    return saved, copied(parallel, state)


def copied(parallel: Parallel, state) -> list[np.ndarray]:
    """Returns copies of the whole leaves, which share no memory with the state."""
    return [np.array(leaf) for leaf in jax.tree.leaves(parallel.whole(state, LIKE))]


def restore(parallel: Parallel, run: pathlib.Path, saved: list[np.ndarray]) -> str:
    """Restores a run's state as `fit` does, in one way; returns what is wrong, or nothing."""
    state, position = Checkpoints(run).restore("latest", parallel.saved(LIKE))
    placed = parallel.adopt(state)
    fresh = parallel.make(lambda params: init_state(params, OPTIMIZER), PARAMS, LIKE)
    if position != {"step": 2}:
        return f"position {position}"
    for mine, other in zip(*map(jax.tree.leaves, (placed, fresh)), strict=True):
        if not mine.sharding.is_equivalent_to(other.sharding, mine.ndim):
            return f"lies as {mine.sharding}, not as {other.sharding}"
    return "other numbers" if differs(copied(parallel, placed), saved) else ""


def differs(leaves: list[np.ndarray], others: list[np.ndarray]) -> bool:
    """Returns whether any leaf has another bit."""
    pairs = zip(leaves, others, strict=True)
    return any(a.dtype != b.dtype or a.tobytes() != b.tobytes() for a, b in pairs)


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("standard"):
        main()
