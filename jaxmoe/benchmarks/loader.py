"""A training step's clips a second against the loader's, each alone on this machine."""

import itertools
import tempfile

import jax
import jax.numpy as jnp

from jaxmoe.benchmarks.row import Row
from jaxmoe.benchmarks.subjects import even_mixture
from jaxmoe.benchmarks.timing import compare
from jaxmoe.data import Augmentation, load_dataset, make_loader
from jaxmoe.threat import ThreatModel
from jaxmoe.training import Batch, RecipeOptions, adamw, init_state, make_train_step
from jaxmoe.training.recipes import standard

BATCHES = 8
BATCH_SIZE = 16
BAR = 0.5


def run() -> list[Row]:
    """One row, with the cheapest step that there is: clean training."""
    with tempfile.TemporaryDirectory() as cache:
        dataset = load_dataset(
            "synthetic_actions",
            resolution=64,
            frames=8,
            cache=cache,
            train_clips=80,
            validation_clips=10,
            test_clips=10,
        )
        loader = make_loader(
            dataset.train,
            batch_size=BATCH_SIZE,
            frames=8,
            height=56,
            augmentation=Augmentation(flip=True),
            shuffle=True,
            repeat=True,
            seed=0,
        )
        batches = iter(loader)
        first = next(batches)
        step = _standard_step(Batch(first["clip"], first["label"], first["index"]))
        row = compare(
            "consumption of a clean training step / loader throughput",
            BAR,
            {
                "loader": lambda: [b["clip"] for b in itertools.islice(batches, BATCHES)],
                "training step": step,
            },
            f"{BATCHES} batches of {BATCH_SIZE} clips 8x56x56 / as many steps",
            times=BATCHES,
        )
        batches.close()
    return [row]


def _standard_step(batch: Batch):
    mixture, _, _ = even_mixture(4)
    optimizer = adamw(1e-2, 1.0)
    params = mixture.init(jax.random.key(0), batch.clip[:1].astype("float32") / 255)
    state = init_state(params, optimizer)
    step = jax.jit(
        make_train_step(
            mixture,
            standard,
            RecipeOptions(),
            ThreatModel(),
            optimizer,
            lambda _: jnp.float32(1e-3),
            lambda _: jnp.float32(0),
        )
    )
    return lambda: step(state, batch, jax.random.key(1))
