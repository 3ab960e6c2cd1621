"""Certified accuracy of a classifier against radius: by Lipschitz constants, or by smoothing.

Axes: B = batch, M = experts, K = classes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoe.attacks.attack import Model
from jaxmoe.evaluation.certify.certificates import (
    Certificate,
    certified_accuracy,
    dual_radius,
    logit_radius,
    mixture_radius,
    top_1_radius,
)
from jaxmoe.evaluation.certify.lipschitz_bounds import Differences
from jaxmoe.evaluation.certify.smoothing import (
    ABSTAINED,
    Smoothing,
    check_smoothing,
    count_votes,
    largest_radius,
    smoothed_radius,
)
from jaxmoe.evaluation.diagnostics.consistency import consistency_check
from jaxmoe.evaluation.diagnostics.full_precision import at_full_precision
from jaxmoe.evaluation.diagnostics.model_checks import guessing_check
from jaxmoe.evaluation.engine.guards import NonFiniteError, check_batch
from jaxmoe.evaluation.engine.programs import Programs, put_params
from jaxmoe.evaluation.engine.rows import Check
from jaxmoe.evaluation.engine.scoring import to_pixels
from jaxmoe.evaluation.engine.summary import to_host
from jaxmoe.evaluation.engine.verdict import flags_in_short, tell_of_model
from jaxmoe.mixture import Mixture, single_expert
from jaxmoe.threat import example_keys

Batches = Iterable[Mapping[str, np.ndarray]]


class CertifiedExamples(NamedTuple):
    """Proofs of N examples."""

    index: np.ndarray  # [N], the examples' own numbers
    label: np.ndarray  # [N]
    prediction: np.ndarray  # [N]; −1 where smoothing abstained
    radius: np.ndarray  # [N], in pixel units, ≥ 0


class CertifiedCurve(NamedTuple):
    """The proofs of one method for one classifier."""

    method: str  # "lipschitz" or "smoothing"
    classifier: str  # whose predictions the certificates are of, in words
    norm: str
    radii: tuple[float, ...]  # in pixel units
    certified_accuracy: tuple[float, ...]  # 0–1, at each radius
    median_radius: float  # of the examples that are predicted as labelled; 0 without any
    abstained: float  # share of the examples without a prediction
    n: int
    # Of smoothing, with the seed of its noise and the largest radius that its samples can certify.
    settings: dict[str, float]
    examples: CertifiedExamples
    model_checks: tuple[Check, ...] = ()

    def __repr__(self) -> str:
        """The curve without the examples, and what the checks flag."""
        curve = ", ".join(
            f"{share:.1%} at {radius:.4g}"
            for radius, share in zip(self.radii, self.certified_accuracy, strict=True)
        )
        return (
            f"CertifiedCurve({self.method} of {self.classifier}, {self.norm}: {curve}; "
            f"n = {self.n}, median radius {self.median_radius:.3g}; "
            f"{flags_in_short(self.model_checks)})"
        )


class Certifiable(NamedTuple):
    """A classifier with certificates from Lipschitz constants.

    `certify` multiplies at the highest precision on every platform, and raises a ValueError where
    the model computes in half precision.
    """

    words: str
    model: Model  # of the same predictions, for attacks
    certify: Callable[[Any, Array], Certificate]


def certifiable(
    mixture: Mixture,
    router_bounds: Differences,
    expert_bounds: Float[np.ndarray, "M K K"],
    standard: Mixture | None = None,
) -> Certifiable:
    """Certifies a mixture by Lipschitz constants.

    A top-1 mixture is certified as it is. A dense mixture and a dual model are certified as
    mixtures of the experts' *probabilities* over all experts, which may predict otherwise than the
    run's own mixture of logits.

    Args:
      mixture: a mixture, or a dual model.
      router_bounds: of its router's logit differences (`logit_difference_bounds`).
      expert_bounds: of every expert's.
      standard: of a dual model, the mixture F_S that it was made of.

    Raises:
      ValueError: 1 < top_k < M, for which there is no certificate.
    """
    bounds = _rounded_up(router_bounds), _rounded_up(expert_bounds)
    experts = mixture.num_experts

    def parts(params, x):
        return mixture.route(params, x), mixture.experts(params, x), *bounds

    def probabilities(params, x):
        weights = jax.nn.softmax(mixture.route(params, x), axis=-1)
        return jnp.einsum(
            "bm,mbk->bk", weights, jax.nn.softmax(mixture.experts(params, x), axis=-1)
        )

    def as_logits(chances):
        return jnp.log(jnp.maximum(chances, 1e-30))

    if standard is not None:

        def standard_probabilities(params, x):
            return jax.nn.softmax(standard.apply(params["standard"], x), axis=-1)

        def dual(params, x):
            alpha = params["alpha"]
            mixed = (1 - alpha) * standard_probabilities(params, x) + alpha * probabilities(
                params, x
            )
            return as_logits(mixed)

        return Certifiable(
            f"the dual model on probabilities (not logits), all {experts} robust experts at once",
            dual,
            at_full_precision(
                lambda params, x: dual_radius(
                    params["alpha"], standard_probabilities(params, x), *parts(params, x)
                )
            ),
        )
    if mixture.top_k == 1:
        return Certifiable(
            "the hard top-1 mixture as it is",
            mixture,
            at_full_precision(lambda params, x: top_1_radius(*parts(params, x))),
        )
    if mixture.top_k < experts:
        raise ValueError(
            f"mixture.top_k: {mixture.top_k} has no certificate; expected 1 or all {experts} "
            "experts (--method smoothing takes any)"
        )
    return Certifiable(
        f"the mixture on probabilities (not logits), all {experts} experts at once",
        lambda params, x: as_logits(probabilities(params, x)),
        at_full_precision(lambda params, x: mixture_radius(*parts(params, x))),
    )


def certifiable_expert(
    mixture: Mixture, expert: int, bounds: Float[np.ndarray, "K K"]
) -> Certifiable:
    """Certifies one expert alone by Lipschitz constants of its logit differences.

    Raises:
      ValueError: there is no such expert.
    """
    model, bounds = single_expert(mixture, expert), _rounded_up(bounds)
    return Certifiable(
        f"expert {expert} alone",
        model,
        at_full_precision(lambda params, x: logit_radius(model(params, x), bounds)),
    )


def lipschitz_curve(
    subject: Certifiable,
    params: Any,
    batches: Batches,
    radii: Sequence[float],
    norm: str,
    progress: Callable[[], None] = lambda: None,
    checks: bool = True,
    say: Callable[[str], None] | None = None,
) -> CertifiedCurve:
    """Certified accuracy at each radius, by Lipschitz constants of `norm`.

    Args:
      subject: of `certifiable`, whose constants are of the same norm.
      params: of the mixture.
      batches: dicts as `evaluate_suite` takes them.
      radii: in pixel units.
      norm: "linf" or "l2".
      progress: called after each batch.
      checks: whether the model itself is checked too.
      say: given a line for each sign that the model is not what it seems; these are warnings
        (`EvaluationWarning`) without it.

    Raises:
      ValueError: a model that computes in half precision.
      NonFiniteError: an output of the mixture was not finite.
    """
    programs, params = Programs(subject.model, norm), put_params(params)

    def certify(params, clip):
        return subject.certify(params, to_pixels(clip))

    def of_batch(batch):
        found, _ = programs.timed("certificate", certify, params, batch["clip"], examples=(1,))
        return jax.device_get(found)

    of_model = _OfModel(programs, params, wanted=checks)
    curve = _curve(
        "lipschitz", subject.words, of_batch, batches, radii, norm, {}, progress, of_model
    )
    tell_of_model(curve.model_checks, say)
    return curve


def smoothing_curve(
    model: Model,
    params: Any,
    batches: Batches,
    radii: Sequence[float],
    smoothing: Smoothing,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
    words: str = "the classifier",
    checks: bool = True,
    say: Callable[[str], None] | None = None,
) -> CertifiedCurve:
    """Certified ℓ2 accuracy of the smoothed `model`.

    Args:
      model: a mixture, or a classifier `(params, x) -> logits`.
      params: its params.
      batches: dicts as `evaluate_suite` takes them.
      radii: in pixel units.
      smoothing: how much noise, and how many samples.
      seed: of the noise, which depends on it and the example's index alone.
      progress: called after each batch.
      words: what the model is called.
      checks: as for `lipschitz_curve`.
      say: as there.
    """
    check_smoothing(smoothing)
    programs, params = Programs(model, "l2"), put_params(params)
    selection, votes = (
        count_votes(model, smoothing, count) for count in (smoothing.selection, smoothing.samples)
    )

    def vote(params, clip, index, seed):
        keys = example_keys(jax.random.key(seed), index)
        keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        x = to_pixels(clip)
        return selection(keys[0], params, x), votes(keys[1], params, x)

    def of_batch(batch):
        inputs = params, batch["clip"], batch["index"], jnp.uint32(seed)
        found, _ = programs.timed("votes", vote, *inputs, examples=(1, 2))
        return Certificate(*smoothed_radius(*jax.device_get(found), smoothing))

    words = f"{words} under noise of σ = {smoothing.sigma:g}, by majority"
    settings = {**smoothing._asdict(), "seed": seed, "largest_radius": largest_radius(smoothing)}
    of_model = _OfModel(programs, params, wanted=checks)
    curve = _curve("smoothing", words, of_batch, batches, radii, "l2", settings, progress, of_model)
    tell_of_model(curve.model_checks, say)
    return curve


class _OfModel:
    """The checks of a model that is certified, or none where they are not wanted."""

    def __init__(self, programs: Programs, params: Any, *, wanted: bool):
        self._programs, self._params, self._wanted = programs, params, wanted
        self._classes = 0
        self._consistent: Check | None = None

    def add(self, batch: Any) -> None:
        """Takes a batch; the first with an example is looked at."""
        if self._wanted and self._consistent is None and np.any(batch["valid"]):
            outputs = self._look(batch)
            self._classes = outputs.logits.shape[-1]
            self._consistent = consistency_check(
                self._programs.model, self._params, self._look, batch, outputs
            )

    def found(self, prediction: np.ndarray, label: np.ndarray) -> tuple[Check, ...]:
        """Returns the checks, with those of the predictions of all examples."""
        if self._consistent is None:
            return ()
        right = (prediction == label).astype(float)
        return self._consistent, guessing_check(right, label, self._classes, prediction)

    def _look(self, batch):
        return to_host(self._programs.clean(self._params, batch)[0])


def _curve(
    method: str,
    words: str,
    of_batch: Callable[[Any], Certificate],
    batches: Batches,
    radii: Sequence[float],
    norm: str,
    settings: dict[str, float],
    progress: Callable[[], None],
    of_model: _OfModel,
) -> CertifiedCurve:
    predictions, found, labels, indices = [], [], [], []
    for batch in batches:
        check_batch(batch)
        valid, label = np.asarray(batch["valid"]), np.asarray(batch["label"])
        if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
            raise ValueError(
                f"label: {label.dtype} of shape {list(label.shape)}; expected one label for each "
                f"example, integers of shape [{len(valid)}]"
            )
        of_model.add(batch)
        certificate = of_batch(batch)
        predictions.append(np.asarray(certificate.prediction)[valid])
        found.append(np.asarray(certificate.radius)[valid])
        if np.isnan(found[-1]).any():
            raise NonFiniteError(f"{method}: an output of {words} is not finite")
        labels.append(label[valid])
        indices.append(np.asarray(batch["index"])[valid])
        progress()
    if not labels or not sum(map(len, labels)):
        raise ValueError("batches: no valid example; expected at least one")
    certificate = Certificate(np.concatenate(predictions), np.concatenate(found))
    label = np.concatenate(labels)
    accuracies = certified_accuracy(certificate, label, np.asarray(radii))
    right = certificate.prediction == label
    return CertifiedCurve(
        method,
        words,
        norm,
        tuple(float(radius) for radius in radii),
        tuple(float(accuracy) for accuracy in accuracies),
        float(np.median(certificate.radius[right])) if right.any() else 0.0,
        float(np.mean(certificate.prediction == ABSTAINED)),
        len(label),
        settings,
        CertifiedExamples(np.concatenate(indices), label, *certificate),
        of_model.found(certificate.prediction, label),
    )


def _rounded_up(bounds: Float[np.ndarray, "..."]) -> Array:
    """In float32, none below what it was."""
    bounds = np.asarray(bounds, np.float64)
    with np.errstate(over="ignore"):
        above = np.nextafter(bounds.astype(np.float32), np.float32(np.inf))
    return jnp.asarray(np.where(bounds == 0, np.float32(0), above))
