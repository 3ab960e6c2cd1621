"""From scores of clips to the figures of a row: means and maxima over the valid clips.

Axes: N = valid clips, B = batch, M = experts.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxmoe.evaluation.engine.guards import NonFiniteError
from jaxmoe.evaluation.engine.rows import robust
from jaxmoe.evaluation.engine.scoring import Outputs, Scores
from jaxmoe.evaluation.measures import metrics
from jaxmoe.evaluation.measures.lipschitz import Lipschitz


def summarize_routing(
    clean: np.ndarray | None, scores: list[Scores] | None, valid: list[np.ndarray]
) -> dict[str, Any]:
    """A row's routing fields.

    Args:
      clean: clean router logits of the valid clips, [N, M]; None for a model without a router.
      scores: of every batch, padding included; None for the clean row.
      valid: which clips of each batch count, bool [B].
    """
    if clean is None:
        return {}
    num_experts = clean.shape[-1]
    # A single expert has an entropy of 0 and log M = 0.
    largest = max(float(np.log(num_experts)), 1e-12)
    entropy = mean(np.asarray(metrics.routing_entropy(clean)))
    fields = {
        "load_clean": metrics.load_of_choices(clean.argmax(-1), num_experts).tolist(),
        "routing_entropy_clean": entropy,
        "routing_entropy_clean_normalized": entropy / largest,
    }
    if scores is None:
        return fields
    entropy = mean(join_valid([score.entropy for score in scores], valid))
    choices = join_valid([score.choice for score in scores], valid)
    return fields | {
        "flip_rate": mean(join_valid([score.flip for score in scores], valid)),
        "routing_iou": mean(join_valid([score.iou for score in scores], valid)),
        "load_adversarial": metrics.load_of_choices(choices, num_experts).tolist(),
        "routing_entropy_adversarial": entropy,
        "routing_entropy_adversarial_normalized": entropy / largest,
    }


def summarize_isolated(
    component: str, clean: np.ndarray, scores: list[Scores], valid: list[np.ndarray]
) -> dict[str, Any]:
    """A row's isolated accuracy, of an attack on one part of a mixture.

    Args:
      component: what was attacked (`NamedAttack.component`).
      clean: what was right without an attack, of the valid clips, [N].
      scores: of every batch, padding included.
      valid: which clips of each batch count, bool [B].
    """
    if component not in ("router", "experts"):
        return {}
    right = [getattr(score, f"isolated_{component}") for score in scores]
    if right[0] is None:
        return {}
    return {"isolated_accuracy": mean(robust(join_valid(right, valid), clean))}


def summarize_lipschitz(figures: list[Lipschitz], valid: list[np.ndarray]) -> dict[str, Any]:
    """A row's Lipschitz fields, mean and maximum of every part."""
    fields: dict[str, Any] = {}
    for part in Lipschitz._fields:
        values = [getattr(figure, part) for figure in figures]
        if values[0] is None:
            continue
        joined = join_valid(values, valid)
        fields[f"lipschitz_{part}_mean"] = joined.mean(axis=0, dtype=np.float64).tolist()
        fields[f"lipschitz_{part}_max"] = joined.max(axis=0).tolist()
    return fields


def join_valid(parts: list[np.ndarray], valid: list[np.ndarray]) -> np.ndarray:
    """Entries of every batch's `part [B, …]` where `valid [B]`, as one [N, …]."""
    return np.concatenate([part[mask] for part, mask in zip(parts, valid, strict=True)])


def join_last(parts: list[Any], valid: list[np.ndarray]) -> Any:
    """`join_valid` of trees whose leaves have the clips as their last axis, [..., N]."""

    def join(*leaves):
        return np.concatenate([leaf[..., v] for leaf, v in zip(leaves, valid, strict=True)], -1)

    return jax.tree.map(join, *parts)


def mean(values: np.ndarray) -> float:
    """The mean over all entries, summed in float64: 4 of 21 is 4 / 21."""
    return float(np.mean(values, dtype=np.float64))


def join_confusion(
    parts: list[np.ndarray | None], valid: list[np.ndarray]
) -> Int[np.ndarray, "N classes classes"] | None:
    """`join_valid` of confusion matrices, which are None where an example has one label."""
    joined = join_or_none(parts, valid)
    return None if joined is None else joined.astype(np.int64)


def join_or_none(parts: list[np.ndarray | None], valid: list[np.ndarray]) -> np.ndarray | None:
    """`join_valid`, or None of what a model or a task does not have."""
    return None if parts[0] is None else join_valid(parts, valid)


def iou_of(confusion: Int[np.ndarray, "N classes classes"] | None) -> float | None:
    """The mean IoU of the sum of the examples' confusion matrices."""
    return None if confusion is None else metrics.mean_iou(confusion.sum(axis=0))


def iou_fields(confusion: Int[np.ndarray, "N classes classes"] | None) -> dict[str, Any]:
    """The fields of a row that say the mean IoU; none where an example has one label."""
    if confusion is None:
        return {}
    between = metrics.mean_iou_interval(confusion)
    return {
        "mean_iou": iou_of(confusion),
        "mean_iou_interval": None if between is None else list(between),
    }


def to_host(outputs: Outputs) -> Outputs:
    """Outputs in host memory, of logits the mean over positions, without those of the experts.

    Of dense labels the rest is most of the bytes, and nothing on the host looks at it.
    """
    return jax.device_get(
        outputs._replace(logits=mean_over_positions(outputs.logits), experts=None)
    )


def mean_over_positions(logits: Float[np.ndarray, "B ... K"]) -> Float[np.ndarray, "B K"]:
    """The mean of each example's logits over its positions; as they are where there is one."""
    return logits if logits.ndim == 2 else logits.mean(axis=tuple(range(1, logits.ndim - 1)))


def mean_measures(
    batches: Sequence[dict[str, np.ndarray] | None], valid: Sequence[np.ndarray]
) -> dict[str, float] | None:
    """The mean over valid clips of each measure; None where there are none.

    Raises:
      NonFiniteError: a measure that is not finite on a valid clip.
    """
    if batches[0] is None:
        return None
    found = {name: join_valid([each[name] for each in batches], valid) for name in batches[0]}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"measures: {name} is not finite on {np.sum(~np.isfinite(values))} "
                f"of {len(values)} examples"
            )
    return {name: mean(values) for name, values in found.items()}
