"""`auto_attack` on what users hand over: few examples, any dtype, wrong labels and axes."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.evaluation import Programs, auto_attack

# Labels that a model does not predict are no better than a guess, and it is said.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

SETTINGS = AttackSettings(steps=2, queries=3)
X = np.random.default_rng(0).random((16, 2, 3), np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
SEEN = []


def linear(params, x):
    SEEN.append(x.shape)
    return x.reshape(len(x), -1) @ params


Y = np.asarray(linear(WEIGHTS, X).argmax(-1))
PROGRAMS = Programs(linear)


def run(x=X, y=Y, params=WEIGHTS, **options):
    given = {"epsilon": 0.1, "version": ["fgsm"], "settings": SETTINGS, "programs": PROGRAMS}
    return auto_attack(linear, params, x, y, **given | options)


def test_a_batch_is_no_larger_than_the_examples_need():
    SEEN.clear()
    run(batch_size=4096)
    assert {shape[0] for shape in SEEN} <= {1, 4, 16}


def test_fewer_examples_and_other_kinds_of_pixels_and_labels_compile_nothing_more():
    whole = run(batch_size=4096)
    compiled = dict(PROGRAMS.compilations)
    few = run(X[:12], Y[:12], batch_size=4096)
    np.testing.assert_array_equal(few.robust, whole.robust[:12])
    np.testing.assert_array_equal(few.x_adv, whole.x_adv[:12])
    levels = np.round(X * 255).astype(np.uint8)
    grey = run(levels, Y.astype(np.uint8), batch_size=4096)
    same = run(levels.astype(np.float32) / np.float32(255), Y.tolist(), batch_size=16)
    np.testing.assert_array_equal(grey.robust, same.robust)
    half = run(X.astype(np.float16), batch_size=128)
    assert half.x_adv.dtype == np.float32
    assert np.abs(half.x_adv - X.astype(np.float16)).max() <= 0.1 + 1e-6
    assert PROGRAMS.compilations == compiled


def test_classes_that_never_occur_are_said_and_kept():
    lines = []
    result = run(y=np.arange(16) % 3 + 1, say=lines.append)
    note = "labels: 1 of 4 classes never occur (0); classes are numbered from 0"
    assert note in lines
    assert note in result.notes
    assert run(y=np.arange(16) % 4).notes == ()


@pytest.mark.parametrize("version", ["standard", ["fgsm"], ["square"]])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"y": np.eye(4, dtype=int)[Y]}, "look one-hot (try label.argmax(-1)); expected integers"),
        ({"y": np.eye(4)[Y]}, "look one-hot"),
        ({"y": np.eye(4, dtype=bool)[Y]}, "look one-hot"),
        ({"y": Y[:, None]}, "are a column (try label[..., 0]); expected integers of shape [16]"),
        ({"y": Y * 1.0}, "are no integers"),
        ({"y": Y + 1}, "on a model of 4 classes; expected 0 to 3 (these look numbered from 1)"),
        ({"y": np.full(16, 2**32)}, "label: 4294967296 to 4294967296 on a model"),
        ({"x": X * 255}, "such as x / 255"),
        ({"epsilon": "8/255"}, "epsilon: '8/255' is text; expected a number"),
        ({"epsilon": [0.1]}, "epsilon: [0.1] is not a number"),
        ({"params": {"w": object()}}, "params: a leaf of type object; expected arrays"),
    ],
)
def test_wrong_inputs_are_named_before_anything_runs(version, given, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        run(**given, version=version, programs=Programs(linear))
    assert "\n" not in str(error.value)


def test_channels_first_pictures_are_refused_by_a_cascade_with_square_alone():
    def model(params, x):
        return x.mean((2, 3)) @ params

    x, params = np.random.default_rng(0).random((2, 3, 8, 8), np.float32), jnp.eye(3)
    for version in ("standard", ["fgsm", "square"]):
        with pytest.raises(ValueError, match=r"square: inputs .* channels-first.*\(0, 2, 3, 1\)"):
            auto_attack(model, params, x, np.zeros(2, int), epsilon=0.1, version=version)
    y = np.asarray(model(params, x).argmax(-1))
    found = auto_attack(model, params, x, y, epsilon=0.1, version=["fgsm"], settings=SETTINGS)
    assert found.clean.all()


def test_one_logit_is_no_robust_classifier():
    def model(params, x):
        return x.reshape(len(x), -1) @ params

    with pytest.raises(ValueError, match=r"model: logits of shape \[1, 1\]; expected 2 classes"):
        auto_attack(model, WEIGHTS[:, :1], X, np.zeros(16, int), epsilon=0.1)
