"""Validation: what a router gains, against plain loops."""

import jax
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.mixture import from_functions
from jaxmoe.parallel import make_parallel
from jaxmoe.threat import ThreatModel
from jaxmoe.training import make_validate
from tests.training.conftest import EXPERTS, tiny_batch

ONE_STEP = AttackSettings(steps=1)


def validate(mixture, params, batches, settings=ONE_STEP, **options):
    parallel, threat = make_parallel(jax.devices()[:1]), ThreatModel("linf", 0.1)
    options = {"adversarial": False} | options
    judge = make_validate(mixture, threat, settings, parallel, params, **options)
    return judge(parallel.place(params), batches)


def as_batches(*parts):
    return [{**part._asdict(), "valid": np.arange(len(part.label)) < 6} for part in parts]


def test_gains_are_those_of_valid_clips_by_plain_loops(mixture):
    params = mixture.init(jax.random.key(3), None)
    parts = [tiny_batch(8, seed=0), tiny_batch(8, seed=1)]
    found = validate(mixture, params, as_batches(*parts))
    x = np.concatenate([to_pixels(part.clip)[:6] for part in parts])
    y = np.concatenate([part.label[:6] for part in parts])
    experts, router = (np.asarray(f(params, x)) for f in (mixture.experts, mixture.route))
    right = experts.argmax(axis=-1) == y
    chosen = right[router.argmax(axis=-1), np.arange(12)]
    assert found.accuracy == pytest.approx(chosen.mean())
    assert found.routing_gain == pytest.approx(chosen.mean() - right.mean())
    assert found.mixture_gain == pytest.approx(chosen.mean() - right.mean(axis=1).max())
    assert right.shape == (EXPERTS, 12)


def test_the_best_iterate_is_judged_whatever_training_keeps(mixture):
    params = mixture.init(jax.random.key(3), None)
    last, best = (
        validate(
            mixture,
            params,
            as_batches(tiny_batch(8)),
            AttackSettings(steps=3, alpha=2.0, iterate=iterate),
            adversarial=True,
        )
        for iterate in ("last", None)
    )
    assert last == best


def test_one_expert_has_nothing_to_gain():
    alone = from_functions(
        lambda w, x: x.reshape(len(x), -1) @ w,
        lambda w, x: x.reshape(len(x), -1) @ w,
        num_experts=1,
    )
    params = {"router": np.ones((36, 1), np.float32), "experts": np.ones((1, 36, 3), np.float32)}
    found = validate(alone, params, as_batches(tiny_batch(8)))
    assert found.routing_gain is None
    assert found.mixture_gain is None
