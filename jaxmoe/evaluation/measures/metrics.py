"""Measures of predictions and of routing, clip by clip.

A router that weighs every class by itself has an axis more; figures are then means over classes.
Axes: B = batch, M = experts, k = chosen experts, K = classes (last axis of logits).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoe.attacks.edge import check_label_shape
from jaxmoe.attacks.objectives import mean_over_labelled


def accuracy(
    logits: Float[Array, "batch ... classes"], labels: Int[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """1 where the largest logit is the label's, else 0; a dense task's mean over labelled pixels.

    Raises:
      ValueError: labels that are no integers, or not one for each position.
    """
    check_label_shape(labels, logits.shape)
    hits = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    hits = hits.astype(jnp.float32)
    return mean_over_labelled(hits, labels)


def confusion(
    logits: Float[Array, "batch ... classes"], labels: Int[Array, "batch ..."]
) -> Int[Array, "batch classes classes"]:
    """How many positions of each example have a label (row) and a prediction (column).

    Void positions, with labels below 0, are in none.
    """
    classes = logits.shape[-1]
    predicted = jnp.argmax(logits, axis=-1).reshape(logits.shape[0], -1)
    labels = labels.reshape(logits.shape[0], -1)
    # One number for each pair; void ones count in a cell that is cut off.
    pair = jnp.where(labels >= 0, labels * classes + predicted.astype(labels.dtype), classes**2)
    counts = jax.vmap(lambda pairs: jnp.bincount(pairs, length=classes**2 + 1))(pair)
    return counts[:, :-1].reshape(-1, classes, classes)


def iou(confusion: Int[np.ndarray, "classes classes"]) -> Float[np.ndarray, " classes"]:
    """|label ∩ prediction| / |label ∪ prediction| of each class, of one confusion matrix.

    It is NaN of a class that is neither labelled nor predicted anywhere.
    """
    confusion = np.asarray(confusion, np.float64)
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)


def mean_iou(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """The mean of `iou` over classes that are labelled or predicted somewhere; NaN without any."""
    found = iou(confusion)
    seen = ~np.isnan(found)
    return float(np.mean(found[seen])) if seen.any() else float("nan")


def mean_iou_interval(
    confusion: Int[np.ndarray, "N classes classes"], draws: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Returns the 95 % interval of `mean_iou` of the sum: percentiles of a bootstrap over images.

    It is the Bayesian bootstrap of Rubin 1981. Every image has a weight, so that the mean is always
    over the same classes. The interval is too narrow where a class is in few images.

    Args:
      confusion: of each image.
      draws: samples of weights of the images.
      seed: of the draw.

    Returns:
      The least and the largest, 0–1; None of fewer than two images with a labelled pixel, which say
      nothing of others.
    """
    both = np.einsum("nkk->nk", confusion)  # the matrices are large: no copy of them is made
    union = confusion.sum(1) + confusion.sum(2) - both
    images, classes = union.any(axis=1), union.any(axis=0)
    if images.sum() < 2:
        return None
    weights = np.random.default_rng(seed).dirichlet(np.ones(images.sum()), draws)
    both, union = (weights @ each[images][:, classes] for each in (both, union))
    low, high = np.percentile(np.mean(both / union, axis=1), [2.5, 97.5]).tolist()
    return low, high


def top_choice(router_logits: Float[Array, "batch ... experts"]) -> Int[Array, "batch ..."]:
    """The expert that the router trusts most."""
    return jnp.argmax(router_logits, axis=-1)


def choice_flips(
    router_logits_adv: Float[Array, "batch ... experts"],
    router_logits: Float[Array, "batch ... experts"],
) -> Float[Array, " batch"]:
    """1 where the first choice changed from clean to adversarial; its mean is the flip rate."""
    changed = top_choice(router_logits_adv) != top_choice(router_logits)
    return _mean_over_routes(changed.astype(jnp.float32))


def routing_iou(
    router_logits_adv: Float[Array, "batch ... experts"],
    router_logits: Float[Array, "batch ... experts"],
    top_k: int,
) -> Float[Array, " batch"]:
    """|A ∩ B| / |A ∪ B| of the two sets of `top_k` chosen experts, in [0, 1].

    Reference: vmoe, `projects/adversarial_attacks` (https://github.com/google-research/vmoe).
    """
    _, adversarial = jax.lax.top_k(router_logits_adv, top_k)
    _, clean = jax.lax.top_k(router_logits, top_k)
    common = jnp.sum(adversarial[..., :, None] == clean[..., None, :], axis=(-2, -1))
    common = common.astype(jnp.float32)
    return _mean_over_routes(common / (2 * top_k - common))


def routing_entropy(router_logits: Float[Array, "batch ... experts"]) -> Float[Array, " batch"]:
    """−Σ_i a_i log a_i of the router weights, in nats, from 0 to log M."""
    log_weights = jax.nn.log_softmax(router_logits, axis=-1)
    # 0 · log 0 is 0, and a logit of −∞ is a weight of 0.
    terms = jnp.where(jnp.isneginf(log_weights), 0.0, jnp.exp(log_weights) * log_weights)
    return _mean_over_routes(-jnp.sum(terms, axis=-1))


def load_of_choices(choices: np.ndarray, num_experts: int) -> np.ndarray:
    """Share of the clips whose first choice each expert is, [M]; sums to 1.

    Args:
      choices: first choices of every clip, int of shape [N, …], N ≥ 1.
      num_experts: M.
    """
    return np.bincount(choices.ravel(), minlength=num_experts) / choices.size


def _mean_over_routes(values: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))
