"""A run that looks trained to its end."""

import pathlib

import jax.numpy as jnp

from jaxmoe.training import Checkpoints, adamw, init_state


def finish(run: pathlib.Path, seconds: float) -> None:
    """Writes the checkpoint of a run that trained for so long."""
    params = {"router": jnp.zeros(1), "experts": jnp.zeros(1)}
    position = {"seconds": seconds, "finished": True}
    Checkpoints(run).save("latest", 1, init_state(params, adamw(0, 0)), position)
