"""Per-example losses that attacks maximise and recipes minimise.

All reduce over every axis but the batch, so that clips, images and dense predictions share them.
Labels below 0 are void: a dense prediction's mean leaves these positions out.
Axes: B = batch, M = experts, K = classes (last axis of logits).
"""

import chex
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxmoe.choices import ROUTER_OUTPUTS, RouterOutput
from jaxmoe.models.precision import accumulation_dtype

FEWEST_CLASSES = 4  # of the difference-of-logits ratios


def cross_entropy(
    logits: Float[Array, "batch ... classes"], labels: Int[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """CE of integer labels, mean over the dense axes if there are any."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return mean_over_labelled(losses, labels)


def standing_cross_entropy(
    logits: Float[Array, "batch ... classes"], labels: Int[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """CE of the positions that are still right, summed; over the number of labelled ones.

    What is wrong already adds nothing, so that a dense prediction's attack spends its steps on what
    it has still to break. 0 where nothing stands.
    Reference: Croce et al. 2024, masked cross-entropy (https://arxiv.org/abs/2306.12941).
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    return mean_over_labelled(jnp.where(right, losses, 0.0), labels)


def kl_divergence(
    logits: Float[Array, "batch ... classes"], other: Float[Array, "batch ... classes"]
) -> Float[Array, " batch"]:
    """KL(p ‖ q) = Σ_k p_k (log p_k − log q_k), mean over the dense axes if there are any.

    p and q are the softmax of `logits` and `other`; both are differentiated. It is computed from
    their logarithms, so that probabilities may be as small as they like.
    """
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(other)
    return _mean_over_positions(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))


def margin(
    logits: Float[Array, "batch ... classes"], labels: Int[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """`max_{j≠y} z_j − z_y`, above 0 where the model is wrong; mean over the dense axes."""
    return mean_over_labelled(_best_wrong(logits, labels) - logit_of(logits, labels), labels)


def difference_of_logits_ratio(
    logits: Float[Array, "batch ... classes"], labels: Int[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """DLR: `(max_{j≠y} z_j − z_y) / (z_(1) − z_(3))`, sorted from the largest.

    No scale or shift of the logits changes it. Below four classes `margin` takes its place.
    Croce & Hein 2020, eq. 6 (https://arxiv.org/abs/2003.01690).
    """
    if logits.shape[-1] < FEWEST_CLASSES:
        return margin(logits, labels)
    largest = jax.lax.top_k(logits, 3)[0]
    scale = largest[..., 0] - largest[..., 2] + 1e-12
    ratios = (_best_wrong(logits, labels) - logit_of(logits, labels)) / scale
    return mean_over_labelled(ratios, labels)


def targeted_difference_of_logits_ratio(
    logits: Float[Array, "batch ... classes"],
    labels: Int[Array, "batch ..."],
    targets: Int[Array, "batch ..."],
) -> Float[Array, " batch"]:
    """Targeted DLR: `(z_t − z_y) / (z_(1) − (z_(3) + z_(4)) / 2)`, eq. 7 there.

    Below four classes it is `z_t − z_y`.
    """
    difference = logit_of(logits, targets) - logit_of(logits, labels)
    if logits.shape[-1] < FEWEST_CLASSES:
        return mean_over_labelled(difference, labels)
    largest = jax.lax.top_k(logits, 4)[0]
    scale = largest[..., 0] - (largest[..., 2] + largest[..., 3]) / 2 + 1e-12
    return mean_over_labelled(difference / scale, labels)


def likeliest_targets(
    logits: Float[Array, "batch ... classes"],
    labels: Int[Array, "batch ..."],
    count: int,
    first: Int[Array, ""] | int = 0,
) -> Int[Array, "targets batch ..."]:
    """The `count` classes of the largest logits without the label, at most K − 1 of them.

    `first` leaves out that many of the largest; where fewer than `count` are left it is the last
    `count` of all.
    """
    count = min(count, logits.shape[-1] - 1)
    wrong = jnp.where(_one_hot(logits, labels), -jnp.inf, logits)
    ordered = jnp.moveaxis(jax.lax.top_k(wrong, logits.shape[-1] - 1)[1], -1, 0)
    return jax.lax.dynamic_slice_in_dim(ordered, jnp.asarray(first, jnp.int32), count)


def logit_of(
    logits: Float[Array, "batch ... classes"], classes: Int[Array, "batch ..."]
) -> Float[Array, "batch ..."]:
    """The logit of one class at each position."""
    return jnp.take_along_axis(logits, classes[..., None], axis=-1)[..., 0]


def is_right(
    logits: Float[Array, "batch ... classes"], labels: Int[Array, "batch ..."]
) -> Bool[Array, " batch"]:
    """Whether anything of an example is still classified as labelled."""
    right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    return jnp.any(right, axis=tuple(range(1, right.ndim)))


def mean_over_labelled(
    values: Float[Array, "batch ..."], labels: Int[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """The mean over the positions of each example whose label is not void; 0 without any."""
    if values.ndim == 1:
        return values
    axes, labelled = tuple(range(1, values.ndim)), labels >= 0
    count = jnp.sum(labelled.astype(values.dtype), axis=axes)
    return jnp.sum(jnp.where(labelled, values, 0.0), axis=axes) / jnp.maximum(count, 1.0)


def lipschitz_quotient(
    output_adv: Float[Array, "batch ..."],
    output: Float[Array, "batch ..."],
    x_adv: Float[Array, "batch ..."],
    x: Float[Array, "batch ..."],
    *,
    roundoff: float | None = None,
    stop_denominator: bool = False,
) -> Float[Array, " batch"]:
    """Returns `MSE(g(x'), g(x)) / max(MSE(x', x), u², 1e-12)`, per example: L_Lip(g).

    The full quotient is differentiated unless `stop_denominator`. It is 0/0 at x' = x, so attacks
    that use it start at random. Its size: MSE(x', x) ≤ ε², 10⁻³ at ε = 8/255, so L_Lip is 10²–10⁴.

    Below u², with u = `roundoff`, the largest rounding error of a pixel in [0, 1], a change of the
    output is mostly rounding: 1.5e-5 in bfloat16, where ε = 1/255 is just above. It is that of the
    coarsest dtype inside g (`unit_roundoff`), or of g's outputs where it is not given.

    Reference: TLGA, ICLR 2026 (https://arxiv.org/abs/2602.01369), temporal Lipschitz loss.
    """
    chex.assert_equal_shape((output_adv, output))
    chex.assert_equal_shape((x_adv, x))
    if roundoff is None:
        roundoff = float(jnp.finfo(output.dtype).eps) / 2
    work = accumulation_dtype(output.dtype)
    numerator = _mean_square(output_adv.astype(work) - output.astype(work))
    denominator = jnp.maximum(_mean_square(x_adv - x), max(roundoff**2, 1e-12))
    if stop_denominator:
        denominator = jax.lax.stop_gradient(denominator)
    return numerator / denominator


def router_output(
    logits: Float[Array, "batch experts"], kind: RouterOutput = "weights"
) -> Float[Array, "batch experts"]:
    """Values for the Lipschitz quotient of a router: its softmax `"weights"` or its `"logits"`."""
    if kind == "weights":
        return jax.nn.softmax(logits, axis=-1)
    if kind == "logits":
        return logits
    raise ValueError(f"attack.router_output: {kind!r} is not one of {', '.join(ROUTER_OUTPUTS)}")


def _best_wrong(logits: Array, labels: Array) -> Array:
    return jnp.max(jnp.where(_one_hot(logits, labels), -jnp.inf, logits), axis=-1)


def _one_hot(logits: Array, classes: Array) -> Array:
    return jax.nn.one_hot(classes, logits.shape[-1], dtype=bool)


def _mean_over_positions(values: Array) -> Array:
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _mean_square(difference: Array) -> Array:
    return _mean_over_positions(jnp.square(difference))
