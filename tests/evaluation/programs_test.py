"""The light judgement of adversarial clips, against planted answers and the full score."""

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR, NEAR

from jaxmoe.evaluation import Programs, evaluate_suite
from jaxmoe.evaluation.engine.programs import on_device

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

EPSILON = 4 / 255
CLIPS = planted.clips((FAR, NEAR), (FAR, FAR), (NEAR, FAR), (FAR, FAR), (FAR, 255))
(BATCH,) = planted.batches(CLIPS, [0, 1, 0, 0, 0])()


def moved(frame, levels):
    """The clips with one frame changed by so many grey levels, clip by clip."""
    change = np.zeros(CLIPS.shape, np.float32)
    change[:, frame] = np.asarray(levels, np.float32)[:, None, None, None] / 255
    return jnp.asarray(CLIPS / np.float32(255) + change)


def verify(params=planted.PARAMS, frame=1, levels=(-4, 0, 0, 0, 0), programs=planted.PROGRAMS):
    return programs.verify(params, BATCH, moved(frame, levels), EPSILON)[0]


def test_the_verdict_is_that_of_the_hard_forward_on_the_given_clips():
    np.testing.assert_array_equal(verify().correct, [0, 0, 1, 1, 1])
    # The other expert says the opposite: 4 grey levels darker in frame 0 turn the third clip's.
    turned = verify(frame=0, levels=(0, 0, -4, 0, 0))
    np.testing.assert_array_equal(turned.correct, [1, 0, 0, 1, 1])


def test_size_and_box_are_those_of_the_given_clips():
    found = verify(levels=(-4, 0, 5, -7, 3))
    np.testing.assert_allclose(found.size, np.array([4, 0, 5, 7, 3]) / 255, atol=1e-6)
    np.testing.assert_array_equal(found.in_box, [True, True, True, True, False])


def test_the_verdict_agrees_with_the_full_score():
    x_adv = moved(1, (-4, 0, 2, -7, 3))
    clean, _ = planted.PROGRAMS.clean(planted.PARAMS, BATCH)
    score, _ = planted.PROGRAMS.score(planted.PARAMS, BATCH, x_adv, clean, EPSILON)
    found, seconds = planted.PROGRAMS.verify(planted.PARAMS, BATCH, x_adv, EPSILON)
    for name in found._fields:
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6),
            getattr(found, name),
            getattr(score, name),
        )
    assert seconds > 0


def test_a_router_of_nans_is_not_finite_though_the_logits_are():
    found = verify(planted.PARAMS | {"router": jnp.float32(jnp.nan)})
    assert not np.any(found.finite)
    assert np.all(verify().finite)


def test_a_plain_classifier_is_verified_alike():
    found, _ = Programs(planted.plain).verify(
        jnp.float32(10.0), BATCH, moved(1, (-4, 0, 0, 0, 0)), EPSILON
    )
    np.testing.assert_array_equal(found.correct, [0, 0, 1, 1, 1])


def test_an_evaluation_sends_params_to_the_device_once(monkeypatch):
    timed, on_host = Programs.timed, []

    def watched(self, name, program, params, *rest, **options):
        on_host.extend(leaf for leaf in jax.tree.leaves(params) if isinstance(leaf, np.ndarray))
        return timed(self, name, program, params, *rest, **options)

    monkeypatch.setattr(Programs, "timed", watched)
    params = jax.tree.map(np.asarray, planted.PARAMS)
    factory = planted.batches(CLIPS, [0, 1, 0, 0, 0])
    found = evaluate_suite(
        planted.MIXTURE,
        params,
        factory,
        attacks=[],
        epsilons=[0.0],
        programs=planted.PROGRAMS,
        probe_batches=0,
    )
    assert found.row("clean", 0.0).n == len(CLIPS)
    assert on_host == []


def test_params_that_models_share_are_on_the_device_once():
    one, other = np.ones(3), np.zeros(3)
    sources, targets = on_device({"a": (abs, one)}, {"a": (abs, one), "b": (abs, other)})
    assert sources["a"][1] is targets["a"][1]
    assert {type(params) for _, params in targets.values()} == {type(jnp.ones(3))}
    np.testing.assert_array_equal(targets["b"][1], other)
