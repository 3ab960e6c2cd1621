"""Per-example losses that attacks maximise and recipes minimise.

All reduce over every axis but the batch, so that clips, images and dense predictions share them.
Axes: B = batch, M = experts, K = classes (last axis of logits).
"""

from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

RouterOutput = Literal["weights", "logits"]
ROUTER_OUTPUTS: tuple[str, ...] = get_args(RouterOutput)


def cross_entropy(
    logits: Float[Array, "batch ... classes"], labels: Int[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """CE of integer labels, mean over the dense axes if there are any."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses, axis=tuple(range(1, losses.ndim)))


def lipschitz_quotient(
    output_adv: Float[Array, "batch ..."],
    output: Float[Array, "batch ..."],
    x_adv: Float[Array, "batch ..."],
    x: Float[Array, "batch ..."],
    *,
    stop_denominator: bool = False,
) -> Float[Array, " batch"]:
    """`MSE(g(x'), g(x)) / max(MSE(x', x), 1e-12)`, per example: L_Lip(g).

    The full quotient is differentiated unless `stop_denominator`. It is 0/0 at x' = x, so attacks
    that use it start at random. Its size: MSE(x', x) ≤ ε², 10⁻³ at ε = 8/255, so L_Lip is 10²–10⁴.

    Reference: TLGA, ICLR 2026 (https://arxiv.org/abs/2602.01369), temporal Lipschitz loss.
    """
    chex.assert_equal_shape((output_adv, output))
    chex.assert_equal_shape((x_adv, x))
    numerator = _mean_square(output_adv - output)
    denominator = jnp.maximum(_mean_square(x_adv - x), 1e-12)
    if stop_denominator:
        denominator = jax.lax.stop_gradient(denominator)
    return numerator / denominator


def router_output(
    logits: Float[Array, "batch experts"], kind: RouterOutput = "weights"
) -> Float[Array, "batch experts"]:
    """What a router's Lipschitz quotient compares: its softmax `"weights"` or its `"logits"`."""
    if kind == "weights":
        return jax.nn.softmax(logits, axis=-1)
    if kind == "logits":
        return logits
    raise ValueError(f"attack.router_output: {kind!r} is not one of {', '.join(ROUTER_OUTPUTS)}")


def _mean_square(difference: Array) -> Array:
    return jnp.mean(jnp.square(difference), axis=tuple(range(1, difference.ndim)))
