"""The programs of an experiment, as shapes alone: nothing is drawn, loaded or run.

B = examples of one device.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr
from jax.sharding import NamedSharding, PartitionSpec

from jaxmoe.attacks import build_attack
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.config import Experiment
from jaxmoe.mixture import Mixture, shard_experts
from jaxmoe.parallel import DATA, EXPERT, Axes, MeshParallel, Shards, layout
from jaxmoe.parallel.shards import is_split
from jaxmoe.runs.build import build_mixture, build_threat, evaluation_settings
from jaxmoe.runs.run import init_params, loop_options, recipe_options
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training import (
    Batch,
    TrainState,
    adamw,
    begin_state,
    make_train_step,
)
from jaxmoe.training.schedules import Numbers, scheduled

Kind = Literal["step", "attack"]
ATTACK = "pgd"  # of the program `attack`


class Placing(NamedTuple):
    """How many devices there are, and what of the state is split over them."""

    devices: int
    expert: int = 1
    fsdp: bool = False

    def layout(self, tree: Any) -> Any:
        """Returns the `PartitionSpec` of each leaf."""
        return layout(tree, data=self.sizes[DATA], expert=self.expert, fsdp=self.fsdp)

    @property
    def sizes(self) -> dict[str, int]:
        """Devices on each axis."""
        return {DATA: self.devices // self.expert, EXPERT: self.expert}

    def shards(self, params: Any) -> Shards:
        """Returns what a per-device function needs to know of params of these shapes."""
        specs = self.layout(params)
        axes = Axes(DATA, EXPERT)
        return Shards(axes, self.devices, self.expert, specs if is_split(specs) else None)

    def share(self, tree: Any) -> Any:
        """Returns the shapes of one device's part of a tree."""

        def part(leaf, spec):
            names = tuple(spec) + (None,) * (len(leaf.shape) - len(spec))
            shape = [
                n // self.sizes.get(name, 1) for n, name in zip(leaf.shape, names, strict=True)
            ]
            return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)

        return jax.tree.map(part, tree, self.layout(tree))


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What every device runs: a training step of the recipe, or PGD as an evaluation runs it.

    Attributes:
      kind: which of them.
      experiment: whose.
      classes: K.
      placing: the devices.
    """

    kind: Kind
    experiment: Experiment
    classes: int
    placing: Placing

    @functools.cached_property
    def mixture(self) -> Mixture:
        """The mixture on one device."""
        return build_mixture(self.experiment, self.classes)

    @functools.cached_property
    def params(self) -> Any:
        """The shapes of the params."""
        return jax.eval_shape(lambda: init_params(self.experiment, self.mixture))

    @functools.cached_property
    def state(self) -> Any:
        """The shapes of what the program takes beside the batch: a training state, or params."""
        if self.kind == "attack":
            return self.params
        numbers = loop_options(self.experiment), recipe_options(self.experiment).radii
        return jax.eval_shape(lambda params: begin_state(params, *numbers), self.params)

    @property
    def steps(self) -> int:
        """Steps of an attack in the program."""
        attack = self.experiment.attack
        return attack.steps if self.kind == "step" else evaluation_settings(self.experiment).steps

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of a step's phases."""
        e = self.experiment
        threat = build_threat(e)
        found = e.recipe.phases(self.mixture, threat, recipe_options(e))
        return tuple(phase.name for phase in found) if self.kind == "step" else (ATTACK,)

    @property
    def default_batch(self) -> int:
        """B as the configuration says; 0 where its batch is smaller than the devices are many."""
        e = self.experiment
        whole = e.training.batch_size if self.kind == "step" else e.evaluation.batch_size
        return whole // self.placing.devices

    def batch(self, examples: int) -> Batch:
        """Returns the shapes of a batch of so many examples."""
        shape = self.experiment.data.shape
        label = shape[:-1] if self.experiment.data.labels_pixels else ()
        return Batch(
            jax.ShapeDtypeStruct((examples, *shape), jnp.uint8),
            jax.ShapeDtypeStruct((examples, *label), jnp.int32),
            jax.ShapeDtypeStruct((examples,), jnp.int32),
        )

    def trace(self, batch: int) -> ClosedJaxpr:
        """Returns what one device runs on a batch, as JAX writes it down; needs no devices."""
        axes = list(self.placing.sizes.items())
        shapes = self.placing.share(self.state), self.batch(batch), self._given
        return jax.make_jaxpr(self._function(), axis_env=axes)(*shapes)

    def lower(self, devices: Sequence[jax.Device], batch: int) -> jax.stages.Lowered:
        """Returns the program for these devices, B examples on each."""
        parallel = MeshParallel(devices, expert=self.placing.expert, fsdp=self.placing.fsdp)

        def placed(leaf, sharding):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        state = jax.tree.map(placed, self.state, parallel.shardings(self.state))
        split = NamedSharding(parallel.mesh, PartitionSpec((DATA, EXPERT)))
        examples = self.batch(batch * len(devices))
        examples = jax.tree.map(lambda leaf: placed(leaf, split), examples)
        everywhere = NamedSharding(parallel.mesh, PartitionSpec())
        given = jax.tree.map(lambda leaf: placed(leaf, everywhere), self._given)
        make = parallel.map_step if self.kind == "step" else parallel.map_examples
        return make(self._function(), self.state).lower(state, examples, given)

    @property
    def _given(self) -> Any:
        """The shapes of what is the same on every device: a key, for a step its numbers too."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        numbers = jax.ShapeDtypeStruct((len(Numbers._fields),), jnp.float32)
        return (key, numbers) if self.kind == "step" else key

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        options = loop_options(self.experiment)
        return adamw(options.weight_decay, options.gradient_clip)

    def _function(self) -> Callable:
        shards, mixture = self.placing.shards(self.params), self.mixture
        if self.placing.expert > 1:
            mixture = shard_experts(mixture, EXPERT, self.placing.expert, shards.axes.names)
        threat = build_threat(self.experiment)
        if self.kind == "step":
            return self._step(mixture, threat, shards)
        return self._attack(mixture, threat, shards)

    def _step(self, mixture: Mixture, threat: ThreatModel, shards: Shards) -> Callable:
        e, o, options = (
            self.experiment,
            loop_options(self.experiment),
            recipe_options(self.experiment),
        )
        make_step = functools.partial(
            make_train_step,
            mixture,
            e.recipe.phases,
            options,
            threat,
            self._optimizer,
            shards=shards,
            weight_perturbation=o.weight_perturbation,
            average_decay=o.average_decay,
        )
        return scheduled(make_step, lam_rises=bool(e.training.epsilon_warmup))

    def _attack(self, mixture: Mixture, threat: ThreatModel, shards: Shards) -> Callable:
        attack = build_attack(ATTACK, mixture, threat, evaluation_settings(self.experiment))

        def run(params, batch: Batch, key):
            whole, x = shards.gather(params), to_pixels(batch.clip)
            result = attack(example_keys(key, batch.index), whole, x, batch.label)
            return result.x_adv, mixture.apply(whole, result.x_adv)

        return run


def bytes_of(tree: Any) -> int:
    """Returns the bytes of a tree of shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def optimizer_of(state: Any) -> Any:
    """Returns the optimiser's state in what a program takes; nothing of params alone."""
    return state.optimizer if isinstance(state, TrainState) else ()
