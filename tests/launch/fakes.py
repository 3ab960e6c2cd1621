"""Runs that look trained to their end, and rows that look measured."""

import pathlib

import jax.numpy as jnp

from jaxmoe.evaluation import Row
from jaxmoe.training import Checkpoints, adamw, init_state


def finish(run: pathlib.Path, seconds: float) -> None:
    """Writes the checkpoint of a run that trained for so long."""
    params = {"router": jnp.zeros(1), "experts": jnp.zeros(1)}
    position = {"seconds": seconds, "finished": True}
    Checkpoints(run).save("latest", 1, init_state(params, adamw(0, 0)), position)


def row(attack: str, epsilon: float, accuracy: float, isolated: float | None = None) -> Row:
    """A row of 20 inputs."""
    return Row(
        attack=attack,
        epsilon=epsilon,
        norm="linf",
        robust_accuracy=accuracy,
        accuracy_under_attack=accuracy,
        n=20,
        seed=0,
        steps=50,
        restarts=1,
        gradient_evaluations=50,
        seconds=1.0,
        compile_seconds=1.0,
        isolated_accuracy=isolated,
    )
