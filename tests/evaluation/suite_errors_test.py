"""Suites refuse what is no evaluation, and what an attack or a model may not return."""

import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR
from planted_suite import CLIPS, LABELS, attack_that_returns, run, run_plain

from jaxmoe import attacks
from jaxmoe.evaluation import (
    NonFiniteError,
    NonFiniteGradient,
    ThreatViolation,
    evaluate_suite,
)

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (np.zeros((5, 1), np.int32), r"label: int32 of shape \[5, 1\] .* expected .* \[5\]"),
        (np.zeros(5), "label: float32 .* expected integers"),
        (np.full(5, -2), "label: -2 to -2 on a model of 2 classes; expected 0 to 1"),
        (np.full(5, 2), "label: 2 to 2 on a model of 2 classes; expected 0 to 1"),
    ],
)
def test_labels_of_no_class_are_refused(label, said):
    from jaxmoe.evaluation import Grid, sweep_grid, transfer_matrix

    def batches():
        (batch,) = planted.batches(CLIPS, LABELS)()
        yield batch | {"label": label}

    model = {"one": (planted.plain, jnp.float32(10.0))}
    for evaluate in (
        lambda: evaluate_suite(*model["one"], batches, attacks=[], epsilons=[0.1]),
        lambda: sweep_grid(*model["one"], batches, attacks=["fgsm"], grid=Grid((0.1,))),
        lambda: transfer_matrix(model, model, batches, attacks=["fgsm"], epsilons=[0.1]),
    ):
        with pytest.raises(ValueError, match=said):
            evaluate()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (lambda logits: logits[:, 0], r"float32\[5\] for inputs"),
        (lambda logits: logits[:1], r"float32\[1, 2\] for inputs"),
        (lambda logits: (logits, logits), "tuple for inputs"),
        (lambda logits: jnp.argmax(logits, axis=-1), r"int32\[5\] for inputs"),
    ],
)
def test_what_are_no_logits_is_refused(output, said):
    model = lambda scale, x: output(planted.plain(scale, x))  # noqa: E731
    with pytest.raises(ValueError, match=f"model: an output of {said}.*expected logits"):
        evaluate_suite(
            model,
            jnp.float32(10.0),
            planted.batches(CLIPS, LABELS),
            attacks=["fgsm"],
            epsilons=[0.1],
        )


def test_programs_of_another_model_are_refused():
    with pytest.raises(ValueError, match="another model"):
        run_plain(programs=planted.PROGRAMS)


def test_a_gradient_that_is_not_finite_is_an_error_that_names_its_clips():
    def broken_where_dark(scale, x):
        # √max(v − ½, 0) has the value 0 and the gradient 0 · ∞ below ½.
        return planted.plain(scale, x) + jnp.sqrt(jnp.maximum(planted.means(x)[:, 1:] - 0.5, 0))

    factory = planted.batches(planted.clips((FAR, FAR), (FAR, 20), (FAR, 30)), [0, 1, 1])
    with pytest.raises(NonFiniteGradient, match=r"fgsm at ε = 0\.0156863.*index \[1, 2\]"):
        run_plain(broken_where_dark, factory, attacks=["fgsm"])


def test_a_router_that_says_nan_is_an_error_and_not_a_robust_model():
    with pytest.raises(NonFiniteError, match="clean"):
        run(params=planted.PARAMS | {"router": jnp.float32(jnp.nan)})


@pytest.mark.parametrize(
    "change",
    [
        lambda x, e: x - 1.01 * e,
        lambda x, e: jnp.where(x > 0.8, 1 + e / 2, x),
        lambda x, e: x + jnp.nan,
    ],
    ids=["ball", "box", "nan"],
)
def test_what_an_attack_returns_is_checked(monkeypatch, change):
    monkeypatch.setitem(attacks.ATTACKS, "liar", attack_that_returns(change))
    clip = np.full_like(CLIPS, 254)
    with pytest.raises((ThreatViolation, NonFiniteError), match="liar"):
        run_plain(attacks=["liar"], factory=planted.batches(clip, LABELS))


def test_a_factory_that_changes_its_mind_is_refused():
    passes = iter(range(9))

    def factory():
        shift = next(passes)
        for batch in planted.batches(CLIPS, LABELS)():
            yield batch | {"index": batch["index"] + shift}

    with pytest.raises(ValueError, match="same batches every time"):
        run(factory, attacks=["pgd"])


def test_no_valid_clip_and_no_epsilon_are_refused():
    def nothing():
        for batch in planted.batches(CLIPS, LABELS)():
            yield batch | {"valid": np.zeros(5, bool)}

    with pytest.raises(ValueError, match="no valid example"):
        run(factory=nothing)
    with pytest.raises(ValueError, match="at least one ε"):
        run(epsilons=[])
    with pytest.raises(ValueError, match=r"epsilons: 0\.1 is one number; expected a list"):
        run(epsilons=0.1)
    with pytest.raises(ValueError, match=r"attacks: 'pgd' is one name; expected a list"):
        run(attacks="pgd")
    with pytest.raises(ValueError, match=r"threat\.epsilon: 8 is more than a pixel .* 8/255"):
        run(epsilons=[8])
    with pytest.raises(ValueError, match=r"batches_factory: list; expected a function"):
        run(factory=[])
    with pytest.raises(ValueError, match=r"batches: .* without index, valid; expected dicts with"):
        run(factory=lambda: [{"clip": CLIPS, "label": LABELS}])
    with pytest.raises(ValueError, match="did you mean pgd"):
        run(attacks=["pdg"])
