"""The parts of a mixture and what they take: params, FLOPs and memory, from shapes alone."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmoe.config import Experiment
from jaxmoe.mixture import Mixture, no_head
from jaxmoe.mixture.mixture import apply_dense
from jaxmoe.runs.plan.count import forward_flops, peak_bytes
from jaxmoe.runs.plan.program import Placing, Program, bytes_of, optimizer_of
from jaxmoe.training.update import is_frozen


class Part(NamedTuple):
    """What one part takes.

    Attributes:
      name: of the part.
      params: how many numbers it has that training moves.
      params_bytes: of all its variables.
      optimizer_bytes: of the optimiser's state for them.
      flops: of convolutions and matmuls of a forward pass on one example; a multiply-add is two.
      held_bytes: the most that one gradient of a batch holds at once, beside variables and batch.
    """

    name: str
    params: int
    params_bytes: int
    optimizer_bytes: int
    flops: int
    held_bytes: int


class Forward(NamedTuple):
    """FLOPs of a forward pass on one example: convolutions and matmuls, a multiply-add two."""

    router: int
    expert: int
    mixture: int
    dense: int  # the router and all experts


@dataclasses.dataclass(frozen=True)
class Network:
    """The numbers that an experiment's mixture takes on one device.

    Attributes:
      parts: router, one expert, the mixture, and the dense network: the router and all experts.
      batch: examples of the gradients.
      shapes: of one expert's variables and of the router's, by their paths.
    """

    parts: tuple[Part, ...]
    batch: int
    shapes: dict[str, tuple[int, ...]]

    @property
    def ratio(self) -> float:
        """FLOPs of the mixture ÷ those of the dense network."""
        mixture, dense = self.parts[-2:]
        return mixture.flops / dense.flops


class Step(NamedTuple):
    """Bytes of one training step on one device: the state, the batch, and what is held beside."""

    state: int
    batch: int
    held: int


def network_of(experiment: Experiment, classes: int) -> Network:
    """Returns what an experiment's mixture takes; nothing is drawn or run, and no data is read.

    Args:
      experiment: a valid one.
      classes: K.
    """
    program = _program(experiment, classes)
    mixture, params = program.mixture, program.params
    batch = experiment.training.batch_size
    one = jax.eval_shape(lambda p: jax.tree.map(lambda leaf: leaf[0], p["experts"]), params)
    alone = {**params, "experts": jax.tree.map(_stacked, one)}
    optimizer = optimizer_of(program.state)

    def part(name, own, of_optimizer, flops, function, whole):
        shapes = whole, _clips(experiment, batch)
        held = peak_bytes(jax.make_jaxpr(_gradient(function))(*shapes))
        return Part(name, _moved(own), bytes_of(own), of_optimizer, flops, held)

    def run_expert(params, x):
        return mixture.expert(params, x, 0)

    router, expert, sparse, all_experts = forward_of(experiment, mixture, params)
    sizes = {name: bytes_of(state) for name, state in optimizer.items()}
    count = mixture.num_experts
    whole = params, sum(sizes.values())
    dense = _dense(mixture)
    parts = (
        part("router", params["router"], sizes["router"], router, mixture.route, params),
        part("one expert", one, sizes["experts"] // count, expert, run_expert, alone),
        part(f"mixture, {mixture.top_k} of {count}", *whole, sparse, mixture.apply, params),
        part(f"dense, all {count}", *whole, all_experts, dense, params),
    )
    named = {"expert": one, "router": params["router"]}
    return Network(parts, batch, _by_path(named))


def forward_of(experiment: Experiment, mixture: Mixture, params: Any) -> Forward:
    """Returns the FLOPs of a forward pass on one example.

    Args:
      experiment: the mixture's.
      mixture: the mixture.
      params: shapes of its params.
    """
    shapes = params, _clips(experiment, 1)
    router = forward_flops(mixture.route, *shapes)
    expert = forward_flops(lambda params, x: mixture.expert(params, x, 0), *shapes)
    if _is_plain(mixture):
        sparse, dense = (router + n * expert for n in (mixture.top_k, mixture.num_experts))
        return Forward(router, expert, sparse, dense)
    whole = (forward_flops(each, *shapes) for each in (mixture.apply, _dense(mixture)))
    return Forward(router, expert, *whole)


def step_of(experiment: Experiment, classes: int) -> Step:
    """Returns what one training step holds on one device: an estimate by the cost model.

    Args:
      experiment: a valid one, whose `training.batch_size` is the batch.
      classes: K.
    """
    program = _program(experiment, classes)
    batch = experiment.training.batch_size
    held = peak_bytes(program.trace(batch))
    return Step(bytes_of(program.state), bytes_of(program.batch(batch)), held)


def _program(experiment: Experiment, classes: int) -> Program:
    return Program("step", experiment, classes, Placing(1))


def _is_plain(mixture: Mixture) -> bool:
    """Returns whether it is a router, experts and their weighted sum, and no more."""
    sparse = mixture.top_k < mixture.num_experts
    return mixture.standard is None and mixture.head is no_head and sparse


def _dense(mixture: Mixture) -> Callable:
    """The same with all experts on every example."""
    if mixture.top_k == mixture.num_experts or mixture.standard is not None:
        return mixture.apply
    whole = mixture._replace(top_k=mixture.num_experts, joint=None)
    return lambda params, x: apply_dense(whole, params, x)


def _gradient(function: Callable) -> Callable:
    return jax.grad(lambda params, x: jnp.sum(function(params, x)), argnums=(0, 1))


def _clips(experiment: Experiment, examples: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((examples, *experiment.data.shape), jnp.float32)


def _stacked(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype)


def _moved(variables: Any) -> int:
    """Numbers that training moves: all but running statistics."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return sum(leaf.size for path, leaf in leaves if not is_frozen(path))


def _by_path(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "/".join(str(getattr(entry, "key", entry)) for entry in path): leaf.shape
        for path, leaf in leaves
    }
