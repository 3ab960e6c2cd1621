"""How good a model is while it trains: clean and robust accuracy on the validation split."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoe.attacks import AttackSettings, cross_entropy, mean_over_labelled, pgd
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.mixture import Mixture, routers, run_parts, score_parts
from jaxmoe.parallel import Parallel
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training.state import Batch


class NonFiniteTrainingError(RuntimeError):
    """A loss, gradient or attack was not finite: the run stops instead of going on with it."""


class Validation(NamedTuple):
    """Means over the validation clips; accuracy of dense labels is that of pixels, clip by clip."""

    accuracy: float
    robust_accuracy: float | None  # under PGD with training's numbers; None where training is clean
    loss: float  # clean cross-entropy where there is no attack, else the adversarial one
    # Share of the clips at the busiest expert: 1 is collapse. Of a dual model the larger one.
    largest_load: float
    # Accuracy less that of a random route, and less that of the best single expert; None of one.
    routing_gain: float | None = None
    mixture_gain: float | None = None
    # Those of the moving average of the params, where one is kept.
    average_accuracy: float | None = None
    average_robust_accuracy: float | None = None


def beside(validation: Validation, average: Validation) -> Validation:
    """Returns the figures of the params with those of their moving average."""
    return validation._replace(
        average_accuracy=average.accuracy, average_robust_accuracy=average.robust_accuracy
    )


def make_validate(
    mixture: Mixture,
    threat: ThreatModel,
    settings: AttackSettings,
    parallel: Parallel,
    params: Any,
    *,
    adversarial: bool,
) -> Callable[[Any, Iterable[Mapping[str, np.ndarray]]], Validation]:
    """`(params, batches) -> Validation`; no robust accuracy where not `adversarial`.

    It takes params as `parallel.place` gives them, and batches that split over the devices, each of
    which judges its share. It raises `NonFiniteTrainingError` where a loss or a gradient is not
    finite.

    Args:
      mixture: what is judged; with split experts as `shard_experts` gives it.
      threat: the threat model.
      settings: of PGD.
      parallel: the devices.
      params: of the shapes that it will be called with.
      adversarial: whether robust accuracy is of interest.
    """
    attack = pgd(mixture, threat, settings.of_judges())

    shards = parallel.shards(params)

    def judge(params, batch: Batch, key):
        params = shards.gather(params)
        x, label = to_pixels(batch.clip), batch.label
        logits, parts = _run(mixture, params, x, label)
        right = jnp.argmax(logits, axis=-1) == label
        result_logits, robust, finite = logits, jnp.zeros_like(right), jnp.ones(len(x), bool)
        if adversarial:
            result = attack(example_keys(key, batch.index), params, x, label)
            finite = result.finite
            result_logits = mixture.apply(params, result.x_adv)
            robust = right & (jnp.argmax(result_logits, axis=-1) == label)
        losses = cross_entropy(result_logits, label)
        right, robust = (mean_over_labelled(hits * 1.0, label) for hits in (right, robust))
        loads = [_first_choices(route(params, x)) for _, route in routers(mixture)]
        found = (right, robust, losses, finite & jnp.isfinite(losses)), (loads, parts)
        return batch.valid, found

    mapped = parallel.map_examples(judge, params)

    def validate(params, batches) -> Validation:
        figures, loads, parts = [], [], []
        for batch in batches:
            part = Batch(batch["clip"], batch["label"], batch["index"], batch["valid"])
            found = mapped(params, parallel.shard(part), parallel.everywhere(jax.random.key(0)))
            # Summed here, in double precision: how clips fall into batches does not matter.
            valid, found = parallel.join(found)
            own, routed = jax.tree.map(lambda leaf, v=valid: leaf[v].astype(float), found)
            figures.append(np.stack(own))
            loads.append(routed[0])
            parts.append(routed[1])
        right, robust, loss, finite = np.concatenate(figures, axis=1)
        if not finite.all():
            # A gradient that is not finite is no attack survived.
            raise NonFiniteTrainingError(
                "validation: a loss or gradient is not finite on "
                f"{len(finite) - finite.sum():.0f} of {len(finite)} examples"
            )
        largest = max(np.concatenate(load).mean(axis=0).max() for load in zip(*loads, strict=True))
        robust_accuracy = float(robust.mean()) if adversarial else None
        gains = [
            float(right.mean() - np.concatenate(part).mean(axis=0).max())
            for part in zip(*parts, strict=True)
        ]
        figures = float(right.mean()), robust_accuracy, float(loss.mean()), float(largest)
        return Validation(*figures, *gains)

    return validate


def _run(mixture: Mixture, params: Any, x: Array, label: Array) -> tuple[Array, tuple]:
    """Logits; and right by a random route, [B, 1], and by each expert alone, [B, M].

    The latter only where there is something to route.
    """
    if mixture.num_experts == 1:
        return mixture.apply(params, x), ()
    logits, router, experts = run_parts(mixture, params, x)
    scores = score_parts(mixture, _right, params, x, label, router, experts)
    return logits, (jnp.mean(scores.routes, axis=0)[:, None], scores.experts.T)


def _right(logits: Array, label: Array) -> Array:
    return mean_over_labelled((jnp.argmax(logits, axis=-1) == label).astype(jnp.float32), label)


def _first_choices(
    router_logits: Float[Array, "batch ... experts"],
) -> Float[Array, "batch experts"]:
    """1 at each clip's first choice; of a gate that weighs every class, the mean over them."""
    chosen = jax.nn.one_hot(jnp.argmax(router_logits, axis=-1), router_logits.shape[-1])
    return jnp.mean(chosen, axis=tuple(range(1, chosen.ndim - 1)))
