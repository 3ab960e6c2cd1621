"""A mixture whose experts are split over devices; examples travel to them and back.

Each device holds M / E of the experts and a share of the examples. The pairs (example, chosen
expert) are sorted by the device that has the expert, and sent there in rounds of C slots for each
device (`all_to_all`). A round in which no device has a pair left is skipped. No pair is dropped,
whatever the routing, and shapes are static, so that a route may change inside an attack.

Axes: E = devices of a row, C = slots that a device has for each of them in a round, R = rounds,
N = pairs of a device, B = examples of a device, k = experts an example, M = experts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmoe.mixture.dispatch import PlainExpert, dispatch
from jaxmoe.mixture.mixture import Clips, Mixture, no_head, with_route

Params = Any


class Rounds(NamedTuple):
    """Where every pair goes, and when."""

    pair: Int[Array, "rounds devices slots"]  # the pair in each slot; any one in an empty slot
    used: Bool[Array, "rounds devices slots"]
    place: Int[Array, " pairs"]  # of each pair, in all slots of all rounds
    needed: Int[Array, ""]  # rounds in which some pair of this device travels


def shard_experts(
    mixture: Mixture, axis_name: str, devices: int, agree: tuple[str, ...] | None = None
) -> Mixture:
    """Returns the mixture as one device of a row runs it, with M / `devices` of the experts.

    Its functions take params whose experts are the device's own, and this device's examples. All
    devices have to call them together: under `shard_map` or `pmap`, and never in a branch that only
    some of them take. Gradients of the experts' params have the examples of the whole row in them.

    Args:
      mixture: one of `from_modules` or `from_functions`.
      axis_name: of the devices of a row.
      devices: E, a divisor of M.
      agree: axes whose devices skip a round together; None is the row's alone.

    Raises:
      ValueError: M does not divide, or a mixture that runs its experts in a way of its own.
    """
    if mixture.num_experts % devices:
        raise ValueError(
            f"parallel.expert: {devices} does not divide mixture.experts = {mixture.num_experts}"
        )
    if mixture.head is not no_head or mixture.standard is not None:
        raise ValueError(
            f"parallel.expert: {devices}; expected 1 for a gate with a head and for a dual model, "
            "or parallel.fsdp"
        )
    if devices == 1:
        return mixture
    held = mixture.num_experts // devices
    agree = (axis_name,) if agree is None else agree

    def expert(params: Params, x: Array) -> Array:
        one = {"experts": jax.tree.map(lambda leaf: leaf[None], params)}
        return mixture.expert(one, x, 0)

    def select(params: Params, x: Clips, experts: Int[Array, "batch k"]) -> Array:
        return exchange(
            expert, params["experts"], x, experts, axis_name, devices, held=held, agree=agree
        )

    def run_experts(params: Params, x: Clips) -> Float[Array, "experts batch ..."]:
        everyone = jax.lax.all_gather(x, axis_name, axis=0, tiled=True)
        outputs = jax.lax.map(lambda own: expert(own, everyone), params["experts"])
        # [M / E, E · B, …] -> [M, B, …]: each device gets its examples' outputs from all experts.
        return jax.lax.all_to_all(outputs, axis_name, split_axis=1, concat_axis=0, tiled=True)

    def run_expert(params: Params, x: Clips, index: Array | int) -> Array:
        return select(params, x, jnp.full((len(x), 1), index))[:, 0]

    sharded = mixture._replace(expert=run_expert, experts=run_experts, select=select)
    return with_route(sharded, mixture.route)


def exchange(
    expert: PlainExpert,
    expert_params: Params,
    x: Float[Array, "batch ..."],
    experts: Int[Array, "batch k"],
    axis_name: str,
    devices: int,
    *,
    held: int,
    agree: tuple[str, ...],
) -> Float[Array, "batch k ..."]:
    """Returns the outputs of the chosen experts, which other devices may hold.

    Args:
      expert: `(params, x [b, …]) -> [b, …]`, one expert on a block of examples.
      expert_params: of the experts that this device holds.
      x: this device's examples.
      experts: the chosen experts of every example, from 0 to M - 1.
      axis_name: of the devices of a row.
      devices: E.
      held: experts on each device, M / E.
      agree: axes whose devices skip a round together.
    """
    batch, chosen = experts.shape
    flat = experts.reshape(-1)
    rounds = plan_rounds(flat // held, devices)
    needed = jax.lax.pmax(rounds.needed, agree)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), expert_params)
    output = jax.eval_shape(expert, one, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype))
    slots = rounds.pair.shape[2]

    def travel(pair, used):
        # A slot that is empty asks for expert `held`, which no device has.
        local = jnp.where(used, flat[pair] % held, held)
        there, wanted = (
            jax.lax.all_to_all(sent, axis_name, 0, 0, tiled=True)
            for sent in (x[pair // chosen], local)
        )
        there = there.reshape(-1, *x.shape[1:])
        found = dispatch(expert, expert_params, there, wanted.reshape(-1, 1))[:, 0]
        found = found.reshape(devices, slots, *output.shape[1:])
        return jax.lax.all_to_all(found, axis_name, 0, 0, tiled=True)

    def run_round(_, this):
        number, pair, used = this
        nothing = jnp.zeros((devices, slots, *output.shape[1:]), output.dtype)
        # What the gradient needs is computed anew: kept, R rounds would take E times the memory.
        travelled = jax.lax.cond(
            number < needed, jax.checkpoint(travel), lambda *_: nothing, pair, used
        )
        return None, travelled

    numbers = jnp.arange(len(rounds.pair))
    _, outputs = jax.lax.scan(run_round, None, (numbers, rounds.pair, rounds.used))
    outputs = outputs.reshape(-1, *output.shape[1:])[rounds.place]
    return outputs.reshape(batch, chosen, *output.shape[1:])


def plan_rounds(owner: Int[Array, " pairs"], devices: int) -> Rounds:
    """Returns the rounds in which pairs travel to the devices that have their experts.

    Evenly spread pairs need one round of C = ⌈N / E⌉ slots; all on one device need R = ⌈N / C⌉.

    Args:
      owner: the device of each pair's expert, from 0 to E - 1.
      devices: E.
    """
    pairs = owner.shape[0]
    slots = -(-pairs // devices)
    rounds = -(-pairs // slots)
    order = jnp.argsort(owner, stable=True)
    counts = jnp.bincount(owner, length=devices)
    starts = jnp.cumsum(counts) - counts
    rank = jnp.arange(pairs) - starts[owner[order]]
    sorted_place = (rank // slots * devices + owner[order]) * slots + rank % slots
    total = rounds * devices * slots
    pair = jnp.zeros(total, order.dtype).at[sorted_place].set(order)
    used = jnp.zeros(total, bool).at[sorted_place].set(True)
    place = jnp.zeros(pairs, sorted_place.dtype).at[order].set(sorted_place)
    shape = rounds, devices, slots
    needed = -(-jnp.max(counts) // slots)
    return Rounds(pair.reshape(shape), used.reshape(shape), place, needed)
