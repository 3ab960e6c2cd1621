"""`auto_attack` on planted models: what breaks, what is said, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR, NEAR
from planted_cascade import CLIPS, EPSILON, LABELS, PARAMS, SETTINGS

from jaxmoe.attacks import AttackSettings, Randomized
from jaxmoe.evaluation import Programs, auto_attack

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")


def test_auto_attack_takes_arrays_and_returns_what_broke_them():
    lines = []
    x, y = CLIPS, np.zeros(5, int)
    found = auto_attack(
        planted.plain,
        PARAMS,
        x,
        y,
        epsilon=EPSILON,
        version=["apgd-ce", "apgd-t", "fab-t", "square"],
        settings=SETTINGS,
        batch_size=4,
        say=lines.append,
    )
    np.testing.assert_array_equal(found.robust, [0, 0, 1, 0, 1])
    assert found.robust_accuracy == 2 / 5
    assert np.abs(found.x_adv - x / np.float32(255)).max() <= EPSILON + 1e-6
    right = np.asarray(planted.plain(PARAMS, jnp.asarray(found.x_adv)).argmax(-1) == y)
    np.testing.assert_array_equal(right, found.robust)
    assert [row.attack for row in found.log] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert "the margin takes its place" in lines[0]
    assert "80.00% of 5" in lines[1]


def test_auto_attack_says_where_gradients_look_masked():
    def quantised(scale, x):
        return planted.plain(scale, jnp.round(64 * x) / 64)

    lines = []
    options = {"version": ["pgd", "square"], "settings": AttackSettings(steps=2, queries=20)}
    clips = planted.clips((0, NEAR), (0, FAR), (0, NEAR), (0, FAR))
    found = auto_attack(
        quantised, jnp.float32(10.0), clips, [0] * 4, epsilon=8 / 255, say=lines.append, **options
    )
    assert {check.verdict for check in found.checks} == {"flag"}
    assert lines[-1].startswith("Masked gradients are likely (2 of 2 checks: zero gradients, white")
    assert (found.clean_accuracy, found.robust_accuracy) == (1, 0.5)
    assert len(repr(found)) < 120

    def softmax(scale, x):
        return jax.nn.softmax(planted.plain(scale, x))

    lines = []
    options["version"] = ["fgsm"]
    auto_attack(
        softmax, jnp.float32(10.0), clips, [0] * 4, epsilon=8 / 255, say=lines.append, **options
    )
    assert "look like probabilities" in lines[0]


def test_auto_attack_takes_vectors_and_names_its_compilation():
    x, lines = np.linspace(0.2, 0.8, 24, dtype=np.float32).reshape(4, 6), []
    found = auto_attack(
        lambda w, x: x @ w,
        jnp.asarray([[1.0, -1.0]] * 6) / 6,
        x,
        [0] * 4,
        epsilon=1.0,
        batch_size=4,
        say=lines.append,
        version=["fgsm", "square"],
        settings=AttackSettings(queries=50),
    )
    assert found.clean_accuracy == 1
    assert "s of compilation" in lines[1]


def test_auto_attack_refuses_what_it_cannot_run():
    def call(x=CLIPS, y=LABELS, epsilon=EPSILON, **options):
        return auto_attack(planted.plain, PARAMS, x, y, epsilon=epsilon, **options)

    with pytest.raises(ValueError, match=r"version: 'best' is not one of standard, plus, rand"):
        call(version="best")
    with pytest.raises(ValueError, match=r"x, y: shapes \(5, .* and \(4,\); expected"):
        call(y=[0] * 4)
    for epsilon in (-1.0, np.float32(-1)):
        with pytest.raises(ValueError, match=r"threat\.epsilon: -1"):
            call(epsilon=epsilon)
    with pytest.raises(ValueError, match=r"version: \[\] is not one of"):
        call(version=[])
    with pytest.raises(ValueError, match=r"batch_size: 0 is not at least 1"):
        call(batch_size=0)
    with pytest.raises(ValueError, match=r"clip: pixels from 0 to 230; expected floats in \[0, 1"):
        call(x=CLIPS.astype(np.float32))
    with pytest.raises(ValueError, match=r"clip: pixels of int64; expected uint8, or floats"):
        call(x=CLIPS.astype(np.int64))
    with pytest.raises(ValueError, match=r"label: 0 to 7 on a model of 2 classes; expected 0 to 1"):
        call(y=[0, 0, 0, 0, 7])
    with pytest.raises(ValueError, match=r"programs: compiled for another model"):
        call(programs=Programs(planted.MIXTURE))
    with pytest.raises(ValueError, match=r"attack: 'apgd-c' is no attack; did you mean apgd-ce"):
        call(version=["apgd-c"])
    with pytest.raises(ValueError, match=r"auto-attack is a cascade; expected one attack"):
        call(version=["autoattack"])


def test_a_randomized_model_is_attacked_in_the_mean():
    def noisy(scale, x, key):
        return planted.plain(scale, x + jax.random.uniform(key, (), x.dtype, -0.01, 0.01))

    found = auto_attack(
        Randomized(noisy),
        PARAMS,
        CLIPS,
        LABELS,
        epsilon=8 / 255,
        version=["apgd-ce", "pgd"],
        settings=AttackSettings(steps=4, draws=3),
    )
    np.testing.assert_array_equal(found.robust, [0, 0, 1, 0, 1])
    assert found.log[0].gradient_evaluations == 4 * 5 * 3
    assert found.log[1].gradient_evaluations == 2 * 4 * 3
