"""The README's python examples run, in order, as a reader would paste them."""

import pathlib
import re
from unittest import mock

import pytest

from jaxmoe.attacks import ATTACKS
from jaxmoe.training import RecipeOptions

README = pathlib.Path(__file__).parent.parent / "README.md"


# Their params are drawn at random: they guess, and are told so.
@pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")
def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    with mock.patch.dict(ATTACKS):  # one example adds its own
        for block in blocks:
            exec(compile(block, str(README), "exec"), names)
    assert 0 <= float(names["accuracy"]) <= 1
    threat = names["ThreatModel"]("linf", 8 / 255)
    assert float(threat.size(names["result"].x_adv, names["x"]).max()) <= 8 / 255 + 1e-6
    (phase,) = names["experts_only"](names["mixture"], threat, RecipeOptions())
    assert phase.moves == {"experts"}
