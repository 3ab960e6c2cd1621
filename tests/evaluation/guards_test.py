"""Wrong arguments of all evaluations, each in one line before anything runs."""

import re

import numpy as np
import planted
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.evaluation import Grid, Programs, evaluate_suite, sweep_grid, transfer_matrix

LEVELS = (planted.FAR, planted.FAR), (planted.NEAR, planted.FAR)
CLIPS = planted.clips(*LEVELS)
SETTINGS = AttackSettings(steps=1)
PROGRAMS = Programs(planted.MIXTURE)
SCALE = planted.PARAMS


def suite(factory, attacks=("fgsm",), epsilons=(0.1,), model=planted.MIXTURE, params=SCALE):
    options = {"attacks": attacks, "epsilons": epsilons, "settings": SETTINGS}
    return evaluate_suite(model, params, factory, probe_batches=0, **options)


def sweep(factory, attacks=("fgsm",), epsilons=(0.1,), model=planted.MIXTURE, params=SCALE):
    options = {"attacks": attacks, "grid": Grid(epsilons), "settings": SETTINGS}
    return sweep_grid(model, params, factory, **options)


def transfer(factory, attacks=("fgsm",), epsilons=(0.1,), model=planted.MIXTURE, params=SCALE):
    models = {"a": (model, params)}
    options = {"attacks": attacks, "epsilons": epsilons, "settings": SETTINGS}
    return transfer_matrix(models, models, factory, **options)


EVALUATIONS = [suite, sweep, transfer]


def with_(**changes):
    """A factory of the two clips with other entries."""
    [batch] = planted.batches(CLIPS, [0, 0])()
    return lambda: [batch | changes]


@pytest.mark.parametrize("evaluate", EVALUATIONS)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"attacks": "fgsm"}, "attacks: 'fgsm' is one name; expected a list"),
        ({"epsilons": 0.1}, "epsilons: 0.1 is one number; expected a list"),
        ({"epsilons": "8/255"}, "epsilons: '8/255' is text; expected a list"),
        ({"epsilons": ["8/255"]}, "epsilons: '8/255' is text"),
        ({"epsilons": []}, "epsilons: none given"),
        ({"factory": [1]}, "batches_factory: list; expected a function that makes a pass"),
        ({"factory": with_(label=np.eye(2, dtype=int))}, "look one-hot"),
        ({"factory": with_(label=np.zeros((2, 1), int))}, "are a column"),
        ({"factory": with_(label=np.array([1, 2]))}, "(these look numbered from 1)"),
        ({"factory": with_(clip=CLIPS.astype(np.float32))}, "such as x / 255"),
        ({"params": {"router": "text"}}, "params: a leaf of type str; expected arrays"),
        ({"model": lambda x: x, "params": None}, "expected a function (params, x) -> logits"),
    ],
)
def test_every_evaluation_names_what_is_wrong(evaluate, given, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        evaluate(**{"factory": with_()} | given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_every_evaluation_names_classes_without_examples(evaluate):
    ten = planted.batches(planted.clips(*LEVELS * 5), [0] * 10)
    assert evaluate(ten).notes == ("labels: 1 of 2 classes never occur (1)",)
    assert evaluate(with_()).notes == ()


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_every_evaluation_refuses_channels_first_for_square(evaluate):
    clip = np.zeros((2, 3, 8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"square: inputs .* look channels-first"):
        evaluate(
            with_(clip=clip),
            ["square"],
            model=lambda scale, x: planted.two_sides(scale * x.mean((1, 2, 3))),
            params=np.float32(10),
        )


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_clips_of_any_width_have_the_figures_of_their_grey_levels(dtype):
    figures = [row.robust_accuracy for row in suite(with_()).rows]
    clip = (CLIPS / 255).astype(dtype)
    assert [row.robust_accuracy for row in suite(with_(clip=clip)).rows] == figures
