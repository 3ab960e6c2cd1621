"""Outputs of a model on clips, and the scores of what an attack returned, clip by clip.

Scores come from running the model again, hard forward, on the returned clips: nothing that the
attack itself believed counts. Axes: B = batch, M = experts, K = classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmoe.attacks.attack import Model, checked_logits, scored_apply
from jaxmoe.attacks.compiled import logits_of
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.attacks.objectives import margin
from jaxmoe.attacks.perturb import is_finite
from jaxmoe.evaluation.engine.kept import Kept, frame_sizes, kept_of
from jaxmoe.evaluation.measures import metrics
from jaxmoe.evaluation.measures.lipschitz import Lipschitz, mixture_lipschitz, model_lipschitz
from jaxmoe.mixture import Mixture, combine_experts, run_parts, run_routed
from jaxmoe.models.precision import unit_roundoff
from jaxmoe.threat import ThreatModel

Metric = Callable[[Array, Array], Float[Array, " batch"]]
"""`(logits, labels) -> [B]`, from 0 (wrong) to 1 (right)."""


class Outputs(NamedTuple):
    """Outputs of a model on a batch. Router and experts are None where the model has none."""

    logits: Float[Array, "batch ..."]
    correct: Float[Array, " batch"]
    finite: Bool[Array, " batch"]
    router: Float[Array, "batch ... experts"] | None
    experts: Float[Array, "experts batch ..."] | None
    confusion: Int[Array, "batch classes classes"] | None  # where every position has a label
    margin: Float[Array, " batch"] | None  # z_y − max_{j≠y} z_j, where labels are classes
    kept: Kept | None = None  # without sizes


class Scores(NamedTuple):
    """Scores of an attacked batch, one entry per clip."""

    correct: Float[Array, " batch"]
    finite: Bool[Array, " batch"]  # all outputs at x'
    size: Float[Array, " batch"]  # ‖x' − x‖ in the threat model's norm
    in_box: Bool[Array, " batch"]
    lipschitz: Lipschitz
    confusion: Int[Array, "batch classes classes"] | None
    margin: Float[Array, " batch"] | None
    choice: Int[Array, "batch ..."] | None  # first choice at x'
    flip: Float[Array, " batch"] | None
    iou: Float[Array, " batch"] | None
    entropy: Float[Array, " batch"] | None  # nats, at x'
    # Right where one part alone sees x', and the other the clean clip.
    isolated_router: Float[Array, " batch"] | None
    isolated_experts: Float[Array, " batch"] | None
    measures: dict[str, Float[Array, " batch"]] | None = None  # by name, those that are asked for
    kept: Kept | None = None


class Verdict(NamedTuple):
    """The verdict on an attacked batch: if it counts, and who survived, one entry per clip."""

    correct: Float[Array, " batch"]
    finite: Bool[Array, " batch"]  # logits and router logits at x'
    size: Float[Array, " batch"]  # ‖x' − x‖ in the threat model's norm
    in_box: Bool[Array, " batch"]
    confusion: Int[Array, "batch classes classes"] | None
    kept: Kept


def count_classes(model: Model, params: Any, batch: dict[str, Any]) -> int:
    """K, the last axis of the logits."""
    clip = jax.ShapeDtypeStruct(batch["clip"].shape, batch["clip"].dtype)
    return logits_of(model, params, jax.eval_shape(to_pixels, clip)).shape[-1]


def run_model(model: Model, metric: Metric, params: Any, x: Array, y: Array) -> Outputs:
    """The hard forward of a model, and of every part that it has."""
    if isinstance(model, Mixture):
        logits, router, experts = run_parts(model, params, x)
        logits = checked_logits(logits, x)
        finite = (
            is_finite(logits) & is_finite(router) & jnp.all(jax.vmap(is_finite)(experts), axis=0)
        )
    else:
        logits, router, experts = scored_apply(model)(params, x), None, None
        finite = is_finite(logits)
    of_labels = _confusion(logits, y), _margin(logits, y)
    kept = kept_of(logits, router)
    return Outputs(logits, metric(logits, y), finite, router, experts, *of_labels, kept)


def score(
    model: Model,
    metric: Metric,
    threat: ThreatModel,
    params: Any,
    x_adv: Array,
    x: Array,
    y: Array,
    outputs: Outputs,
    clean: Outputs,
) -> Scores:
    """The scores of adversarial clips `x_adv`, pixels in [0, 1], against the clean ones.

    Args:
      model: what was attacked.
      metric: says what is right in the isolated forms.
      threat: what the attack was allowed.
      params: of the model.
      x_adv: the adversarial clips.
      x: the clean clips.
      y: their labels.
      outputs: `run_model` of `x_adv`.
      clean: `run_model` of `x`.
    """
    common = (outputs.correct, outputs.finite, threat.size(x_adv, x), _in_box(x_adv, x, threat))
    kept = outputs.kept._replace(size=frame_sizes(threat, x_adv, x))
    roundoff = unit_roundoff(scored_apply(model), params, x)
    if not isinstance(model, Mixture):
        lipschitz = model_lipschitz(outputs.logits, clean.logits, x_adv, x, roundoff)
        of_labels = outputs.confusion, outputs.margin
        return Scores(*common, lipschitz, *of_labels, *[None] * 6, kept=kept)
    lipschitz = mixture_lipschitz(
        (outputs.logits, outputs.router, outputs.experts),
        (clean.logits, clean.router, clean.experts),
        x_adv,
        x,
        roundoff,
        unit_roundoff(model.route, params, x),
    )
    return Scores(
        *common,
        lipschitz,
        outputs.confusion,
        outputs.margin,
        metrics.top_choice(outputs.router),
        metrics.choice_flips(outputs.router, clean.router),
        metrics.routing_iou(outputs.router, clean.router, model.top_k),
        metrics.routing_entropy(outputs.router),
        metric(combine_experts(model, params, x, outputs.router, clean.experts), y),
        metric(combine_experts(model, params, x, clean.router, outputs.experts), y),
        kept=kept,
    )


def verify(
    model: Model, metric: Metric, threat: ThreatModel, params: Any, x_adv: Array, x: Array, y: Array
) -> Verdict:
    """The verdict on adversarial clips `x_adv`, pixels in [0, 1], by the hard forward.

    `score` runs every expert on every clip; this runs the router and the chosen experts alone.
    """
    if isinstance(model, Mixture):
        logits, router = run_routed(model, params, x_adv)
        logits = checked_logits(logits, x_adv)
        # A router of NaNs may leave logits that are finite, and worthless.
        finite = is_finite(logits) & is_finite(router)
    else:
        logits, router = scored_apply(model)(params, x_adv), None
        finite = is_finite(logits)
    in_box, sizes = _in_box(x_adv, x, threat), frame_sizes(threat, x_adv, x)
    kept = kept_of(logits, router)._replace(size=sizes)
    common = metric(logits, y), finite, threat.size(x_adv, x), in_box
    return Verdict(*common, _confusion(logits, y), kept)


def _confusion(logits: Array, y: Array) -> Int[Array, "batch classes classes"] | None:
    """The confusion matrix of each example of a dense task; None where an example has one label."""
    return metrics.confusion(logits, y) if y.ndim > 1 and _are_classes(logits, y) else None


def _margin(logits: Array, y: Array) -> Float[Array, " batch"] | None:
    """How far the label's logit is above the next, the mean over positions of a dense task."""
    return -margin(logits, y) if _are_classes(logits, y) else None


def _are_classes(logits: Array, y: Array) -> bool:
    """Whether labels are numbers of classes, of which there are at least two."""
    integers = jnp.issubdtype(y.dtype, jnp.integer)
    return integers and y.shape == logits.shape[:-1] and logits.shape[-1] > 1


def _in_box(x_adv: Array, x: Array, threat: ThreatModel) -> Bool[Array, " batch"]:
    # A clean pixel outside the box may stay there, as in `ThreatModel.project`.
    low, high = threat.bounds
    inside = (x_adv >= jnp.minimum(x, low)) & (x_adv <= jnp.maximum(x, high))
    return jnp.all(inside, axis=tuple(range(1, x.ndim)))
