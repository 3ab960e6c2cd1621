"""Training keeps the last iterate, runs of before kept the best, and judges always do."""

import dataclasses

import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import ATMConfig, EvaluationConfig, Experiment, StandardConfig, to_dict
from jaxmoe.files import write_json
from jaxmoe.runs.build import evaluation_settings
from jaxmoe.runs.folder import check_same_experiment


def test_an_evaluation_of_several_starts_does_not_ask_what_training_keeps():
    attack = AttackSettings(iterate="last")
    experiment = Experiment(attack=attack, evaluation=EvaluationConfig(restarts=3))
    assert evaluation_settings(experiment) == dataclasses.replace(
        evaluation_settings(Experiment()), restarts=3
    )


def test_a_run_of_before_goes_on_as_it_was(tmp_path):
    def recorded(recipe):
        """A folder as it was before `attack.iterate`."""
        values = to_dict(Experiment(recipe=recipe))
        del values["attack"]["iterate"]
        folder = tmp_path / recipe.name
        folder.mkdir()
        write_json(folder / "config.json", values)
        return folder

    clean, attacked = recorded(StandardConfig()), recorded(ATMConfig())
    check_same_experiment(clean, Experiment(recipe=StandardConfig()))  # no attack trains
    with pytest.raises(ValueError, match=r"holds a run with attack\.iterate = best, not None"):
        check_same_experiment(attacked, Experiment(recipe=ATMConfig()))
    best = AttackSettings(iterate="best")
    check_same_experiment(attacked, Experiment(recipe=ATMConfig(), attack=best))
