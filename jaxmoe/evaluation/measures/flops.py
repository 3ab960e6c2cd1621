"""Floating-point operations of a mixture, counted from compiled programs.

XLA's cost analysis counts the body of a loop once, however often it runs, and operations inside a
custom call not at all. The mixture runs its experts in a loop over blocks of clips, so its count is
put together: the compiled mixture, its loop body once, plus the body's expert for each further
trip; the trips are read from the compiled program. Everything is compiled for the CPU, whose
convolutions are no custom calls, on any machine.

Axes: B = batch, M = experts, b = clips in a block, S = blocks.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmoe.mixture import Mixture, no_head
from jaxmoe.mixture.dispatch import default_block_size, num_blocks

_TRIPS = re.compile(r'known_trip_count":\s*\{\s*"n"\s*:\s*"(\d+)"')
# A program in context may be fused a little better than the same on its own.
_FUSION = 0.02


class MixtureFlops(NamedTuple):
    """GFLOPs for one clip, a multiply-add being two."""

    router: float
    expert: float  # one expert on one clip
    sparse: float  # the mixture as compiled, every block run: the most that it can cost
    dense: float  # the router and all M experts on every clip
    ratio: float  # sparse / dense
    ideal_ratio: float  # (router + top_k · expert) / dense: no padding of blocks
    blocks: int  # S of a batch
    block_size: int  # b


def mixture_flops(
    mixture: Mixture,
    params: Any,
    clip_shape: tuple[int, ...],
    batch_size: int = 32,
    block_size: int | None = None,
) -> MixtureFlops:
    """Counts a mixture's operations on a batch of clips.

    Args:
      mixture: sparse, `top_k < M`.
      params: its params, or their shapes.
      clip_shape: of one clip, [T, H, W, C], or image, [H, W, C].
      batch_size: B.
      block_size: what the mixture was built with; None as there.

    Raises:
      ValueError: a dense mixture, one with a head, or a program whose operations cannot be counted:
        an expert or a router with a loop or a custom call of its own, or a compiled mixture that is
        not made of a router and one expert per block.
    """
    pairs = batch_size * mixture.top_k
    if mixture.top_k == mixture.num_experts:
        raise ValueError("flops: top_k = M is the dense mixture; there is nothing to compare")
    if mixture.head is not no_head:
        raise ValueError("flops: a mixture with a head (a dual model) is more than its parts")
    block_size = block_size or default_block_size(pairs, mixture.num_experts)
    blocks = num_blocks(pairs, mixture.num_experts, block_size)
    clips = jax.ShapeDtypeStruct((batch_size, *clip_shape), jnp.float32)
    block = jax.ShapeDtypeStruct((block_size, *clip_shape), jnp.float32)

    router = _count("router", mixture.route, params, clips)
    # One expert's params as arguments, so that taking them from the stack is not counted.
    on_batch = _count("expert", _one_expert(mixture), _first_expert(params), clips)
    on_block = _count("expert", _one_expert(mixture), _first_expert(params), block)
    text, counted = _compile(mixture.apply, params, clips)
    overhead = counted - router - on_block
    trips = [int(count) for count in _TRIPS.findall(text)]
    # Half of an expert beside it is no routing, sorting or combining: the body was counted twice.
    as_expected = -_FUSION * counted <= overhead <= on_block / 2
    if not as_expected or (blocks > 1 and blocks not in trips):
        raise ValueError(
            f"flops: the compiled mixture has loops of {trips} trips and {counted:.4g} operations; "
            f"expected a loop of {blocks} and {router + on_block:.4g} operations, its body once"
        )
    sparse = counted + (blocks - 1) * on_block
    dense = router + mixture.num_experts * on_batch
    ideal = router + mixture.top_k * on_batch
    per_clip = 1e-9 / batch_size
    return MixtureFlops(
        router * per_clip,
        on_batch * per_clip,
        sparse * per_clip,
        dense * per_clip,
        sparse / dense,
        ideal / dense,
        blocks,
        block_size,
    )


def _first_expert(params: Any) -> Any:
    """Shapes of params whose only expert is the first."""

    def first(p):
        return jax.ShapeDtypeStruct((1, *p.shape[1:]), p.dtype)

    return {**params, "experts": jax.tree.map(first, params["experts"])}


def _one_expert(mixture: Mixture) -> Callable:
    return lambda params, x: mixture.expert(params, x, 0)


def _count(what: str, function: Callable, params: Any, x: jax.ShapeDtypeStruct) -> float:
    """Operations of a program that has no loop and no custom call."""
    text, flops = _compile(function, params, x)
    for hidden in (" while(", " custom-call("):
        if hidden in text:
            raise ValueError(
                f"flops: the {what}'s compiled program has a{hidden.rstrip('(')}, whose operations "
                "the cost analysis does not count"
            )
    return flops


def _compile(function: Callable, params: Any, x: jax.ShapeDtypeStruct) -> tuple[str, float]:
    """The compiled program as text, and its operations with loop bodies counted once."""
    cpu = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])

    def shape(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=cpu)

    compiled = jax.jit(function).lower(*jax.tree.map(shape, (params, x))).compile()
    return compiled.as_text(), float(compiled.cost_analysis()["flops"])
