"""Sparse means sparse: each chosen expert runs on its own clips, and none is dropped.

The pairs (clip, chosen expert) are sorted by expert and cut into blocks that have one expert each.
A scan runs over the blocks with that expert's params, and the results are scattered back. No block
can overflow, so a clip's output does not depend on its neighbours ("Buffer Overflow in MoE",
https://arxiv.org/abs/2402.05526).

Axes: B = batch, k = experts a clip, N = B·k pairs, M = experts, S = blocks, b = clips in a block.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmoe.models.conv import CONV_OUTPUT
from jaxmoe.models.convolution import convolution_p
from jaxmoe.models.precision import programs_of

Params = Any
PlainExpert = Callable[[Params, Array], Array]


# What the backward pass keeps of a block; it repeats the rest. Stacked over S blocks, any other
# activation costs more to write and read than to compute (a third of an input gradient's time on
# CPU, and half its memory), and S copies of an expert would be larger than all M experts.
_KEEP_PRODUCTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_saveable,
        lambda primitive, *_, **__: primitive is convolution_p,
    ),
    jax.checkpoint_policies.save_only_these_names(CONV_OUTPUT),
)
# Of an expert that rematerialises: this policy would hold within the expert too, in place of its
# own, and keep every convolution and matmul that the expert means to drop.
_KEEP_NOTHING = jax.checkpoint_policies.nothing_saveable
_REMAT = "remat2", "checkpoint"  # names of the primitive in versions of JAX


class Plan(NamedTuple):
    """Where every pair goes. A slot is a place in a block; an empty one repeats a pair of it."""

    slot_pair: Int[Array, "blocks size"]
    block_expert: Int[Array, " blocks"]
    block_used: Array  # shape=(S,), dtype=bool: whether a block holds any pair
    pair_slot: Int[Array, " pairs"]


def num_blocks(pairs: int, num_experts: int, block_size: int) -> int:
    """The most blocks that `pairs` spread over `num_experts` can need: a static number."""
    return min(-(-pairs // block_size) + num_experts - 1, pairs)


def default_block_size(pairs: int, num_experts: int) -> int:
    """Half an even share of the pairs, from 1 to 8.

    Small blocks waste less on padding, (M − 1)·b / B; large ones keep the kernels large.
    """
    return max(1, min(8, pairs // (2 * num_experts)))


def make_plan(experts: Int[Array, " pairs"], num_experts: int, block_size: int) -> Plan:
    """Sorts pairs by expert and cuts them into blocks of one expert each.

    Args:
      experts: the expert of every pair; M for a pair that counts for nothing, which is in no block.
      num_experts: M.
      block_size: b.
    """
    pairs = experts.shape[0]
    blocks = num_blocks(pairs, num_experts, block_size)
    counts = jnp.bincount(experts, length=num_experts)
    expert_blocks = -(-counts // block_size)
    block_ends = jnp.cumsum(expert_blocks)
    block_starts = block_ends - expert_blocks
    pair_starts = jnp.cumsum(counts) - counts

    order = jnp.argsort(experts, stable=True)
    sorted_expert = experts[order]
    counts_for_one = sorted_expert < num_experts
    own = jnp.minimum(sorted_expert, num_experts - 1)
    sorted_slot = block_starts[own] * block_size + jnp.arange(pairs) - pair_starts[own]
    pair_slot = (
        jnp.zeros(pairs, sorted_slot.dtype).at[order].set(jnp.where(counts_for_one, sorted_slot, 0))
    )
    sorted_slot = jnp.where(counts_for_one, sorted_slot, blocks * block_size)  # beyond: dropped

    block = jnp.arange(blocks)
    block_expert = jnp.minimum(
        jnp.searchsorted(block_ends, block, side="right"), num_experts - 1
    ).astype(jnp.int32)
    # An empty slot repeats a pair of the block's own expert: no clip ever meets an expert that it
    # was not sent to, whose gradient might be 0 · ∞.
    first_pair = order[jnp.minimum(pair_starts[block_expert], pairs - 1)]
    slot_pair = jnp.repeat(first_pair, block_size).at[sorted_slot].set(order)
    return Plan(
        slot_pair.reshape(blocks, block_size), block_expert, block < block_ends[-1], pair_slot
    )


def dispatch(
    expert: PlainExpert,
    expert_params: Params,
    x: Float[Array, "batch ..."],
    experts: Int[Array, "batch k"],
    block_size: int | None = None,
) -> Float[Array, "batch k ..."]:
    """The outputs of the chosen experts alone, differentiable in `expert_params` and `x`.

    Args:
      expert: `(params, x [b, …]) -> [b, …]`, one expert on a block of clips, clip by clip. Its
        gradient keeps the results of matmuls and convolutions and repeats everything else; with
        `jax.checkpoint` anywhere in the expert it keeps nothing of a block but its clips.
      expert_params: the experts' params, stacked on a leading axis M.
      x: the clips.
      experts: the chosen experts of every clip.
      block_size: clips in a block; None picks `default_block_size`.
    """
    x = jnp.asarray(x)
    batch, chosen = experts.shape
    num_experts = jax.tree.leaves(expert_params)[0].shape[0]
    block_size = block_size or default_block_size(batch * chosen, num_experts)
    plan = make_plan(experts.reshape(-1), num_experts, block_size)
    one = jax.eval_shape(lambda params: jax.tree.map(lambda p: p[0], params), expert_params)
    block_shape = jax.ShapeDtypeStruct((block_size, *x.shape[1:]), x.dtype)
    program, output = jax.make_jaxpr(expert, return_shape=True)(one, block_shape)
    policy = _KEEP_NOTHING if _rematerialises(program.jaxpr) else _KEEP_PRODUCTS

    fixed_params = jax.lax.stop_gradient(expert_params)

    @functools.partial(jax.checkpoint, policy=policy)
    def run_block(gradient_sink, block):
        slot_pair, index, used = block
        params, gradient_sink = _take_expert(fixed_params, gradient_sink, index)
        logits = jax.lax.cond(
            used,
            # Once more inside the branch: else the backward pass repeats the activations in one
            # `cond` and hands all of them, as its outputs, to another.
            jax.checkpoint(expert, policy=policy),
            lambda *_: jnp.zeros((block_size, *output.shape[1:]), output.dtype),
            params,
            x[slot_pair // chosen],
        )
        return gradient_sink, logits

    _, blocks = jax.lax.scan(
        run_block, expert_params, (plan.slot_pair, plan.block_expert, plan.block_used)
    )
    slots = blocks.reshape(-1, *blocks.shape[2:])
    return slots[plan.pair_slot].reshape(batch, chosen, *slots.shape[1:])


def _rematerialises(program: Any) -> bool:
    """Whether a program, or one that it calls, has a `jax.checkpoint` of its own."""
    return any(
        equation.primitive.name in _REMAT
        for inner in programs_of(program)
        for equation in inner.eqns
    )


@jax.custom_vjp
def _take_expert(params: Params, gradient_sink: Params, index: Array) -> tuple[Params, Params]:
    """One expert's params. Their gradient is added in place to that of `gradient_sink`.

    The transpose that JAX derives for indexing adds a zero-padded array of all M experts in every
    block; with the sink as the scan's carry, a block touches its own expert alone.
    """
    take = lambda p: jax.lax.dynamic_index_in_dim(p, index, 0, keepdims=False)  # noqa: E731
    return jax.tree.map(take, params), gradient_sink


def _take_expert_forward(params, gradient_sink, index):
    return _take_expert(params, gradient_sink, index), index


def _take_expert_backward(index, cotangents):
    slices, sink = cotangents
    added = jax.tree.map(lambda total, part: total.at[index].add(part), sink, slices)
    return None, added, None


_take_expert.defvjp(_take_expert_forward, _take_expert_backward)
