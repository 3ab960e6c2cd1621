"""Options that several commands share."""

import re

import pytest

from jaxmoe.commands.arguments import RunFailedError
from jaxmoe.data import load_dataset
from tests.commands.tiny import run


@pytest.mark.parametrize(
    "command", ["evaluate run", "sweep run", "transfer run other/run", "certify run"]
)
@pytest.mark.usefixtures("described")
def test_every_command_that_judges_a_run_takes_other_clips(command, monkeypatch):
    asked = []

    def stop(run, experiment, fields, progress):
        asked.append(fields)
        raise RunFailedError("seen")

    monkeypatch.setattr("jaxmoe.runs.run.open_clips", stop)
    fields = {"name": "npz", "directory": "new", "manifest": "judge.csv"}
    options = " ".join(f"--data.{name} {value}" for name, value in fields.items())
    assert run(f"{command} {options}") == run(command) == 1
    assert asked == [fields, {}]


@pytest.mark.parametrize(
    "given", ["--epsilons -1/255", "--epsilons=-1/255", "--epsilons 0 -.5/255"]
)
@pytest.mark.usefixtures("described")
def test_a_number_below_0_is_named(given, capsys):
    assert run(f"evaluate run {given}") == 2
    assert re.search(r"--epsilons: -\S+ is below 0; expected", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("evaluate run --examples 4", "--examples: it is called --limit now"),
        ("evaluate run --dual-alpha=0.5", "--dual-alpha: it is called --dual-weight now"),
        ("transfer run other/run --examples 4", "--examples: no such argument; did you mean --"),
        ("data --name camvid --size 8", "--data.size: it is called --data.height now"),
    ],
)
@pytest.mark.usefixtures("described")
def test_an_option_of_before_says_its_name_of_now_where_there_is_one(given, said, capsys):
    assert run(given) == 2
    assert said in capsys.readouterr().err


def test_clips_that_are_rendered_have_no_directory(tmp_path):
    with pytest.raises(
        ValueError, match=r"data\.directory: synthetic_actions has no such field; vi"
    ):
        load_dataset("synthetic_actions", cache=tmp_path, directory="gone")
