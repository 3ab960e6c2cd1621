"""What the loop is told: its stages, its numbers, its batches, and who listens."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.training.metrics_log import DEFAULT_LOGGERS
from jaxmoe.training.phase import Params, Recipe
from jaxmoe.training.update import is_frozen
from jaxmoe.training.validation import Validation


class Position(Protocol):
    """An iterator of batches whose place can be saved."""

    def __next__(self) -> Mapping[str, np.ndarray]:
        """The next batch: `clip`, `label`, `index`."""
        ...

    def get_state(self) -> Any:
        """The place, as JSON holds it."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes on from a place."""
        ...


@dataclasses.dataclass(frozen=True)
class Stage:
    """Epochs of one recipe.

    Attributes:
      name: shown while it runs.
      recipe: makes the phases.
      epochs: passes over the training clips.
      epsilon_warmup: share of the stage in which ε and λ rise from 0.
      in_turn: sweep the data once for each phase instead of running all phases on each batch.
      prepare: `(key, params) -> params`, once before the stage; None leaves them.
      measure_every: epochs between measurements of the losses by which ε is drawn; 0 is never.
      patience: validations without a better one after which it ends, counted from where ε has
        risen; None goes on to its end.
      validates: whether the mixture is worth a look while it runs.
      selects: whether its validations may become the best checkpoint, from where ε has risen.
      learning_rate: at its peak; None is the loop's.
    """

    name: str
    recipe: Recipe
    epochs: int
    epsilon_warmup: float = 0.0
    in_turn: bool = False
    prepare: Callable[[Any, Params], Params] | None = None
    measure_every: int = 0
    patience: int | None = None
    validates: bool = True
    selects: bool = True
    learning_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """The numbers of the loop; the fields of `OptimizerConfig` and `RunConfig`."""

    learning_rate: float
    weight_decay: float
    schedule: str
    warmup: float
    gradient_clip: float
    accumulate: int
    seed: int
    checkpoint_every: int
    validate_every: int
    log_every: int
    weight_perturbation: float = 0.0
    average_decay: float = 0.0
    checkpoint_steps: int = 0
    keep_latest: int = 2
    keep_every: int | None = None
    logger: tuple[str, ...] | None = DEFAULT_LOGGERS


class Progress(Protocol):
    """Listens while a run goes on."""

    def stage(self, name: str, steps: int, done: int) -> None:
        """A stage of `steps` begins, `done` of them done before."""
        ...

    def step(self, metrics: Mapping[str, float] | None) -> None:
        """A step is done; its metrics where they were read."""
        ...

    def epoch(self, epoch: int, validation: Validation) -> None:
        """An epoch was validated."""
        ...


def copy_expert(noise: float) -> Callable[[Any, Params], Params]:
    """`prepare` that gives every expert the params of expert 0, times 1 + noise · 𝒩(0, 1)."""

    def prepare(key, params):
        leaves, structure = jax.tree_util.tree_flatten_with_path(params["experts"])
        keys = jax.random.split(key, len(leaves))
        copies = [
            jnp.broadcast_to(leaf[:1], leaf.shape)
            * (1 if is_frozen(path) else 1 + noise * jax.random.normal(k, leaf.shape, leaf.dtype))
            for k, (path, leaf) in zip(keys, leaves, strict=True)
        ]
        return {**params, "experts": jax.tree.unflatten(structure, copies)}

    return prepare


class Silent:
    """Progress that nobody watches."""

    def stage(self, name: str, steps: int, done: int) -> None:
        """Says nothing."""

    def step(self, metrics: Mapping[str, float] | None) -> None:
        """Says nothing."""

    def epoch(self, epoch: int, validation: Validation) -> None:
        """Says nothing."""
