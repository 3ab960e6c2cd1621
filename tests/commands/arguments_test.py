"""Options that several commands share."""

import pytest

from jaxmoe.commands.arguments import RunFailedError
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

    monkeypatch.setattr("jaxmoe.run.open_clips", stop)
    fields = {"name": "npz", "directory": "new", "manifest": "judge.csv"}
    options = " ".join(f"--data.{name} {value}" for name, value in fields.items())
    assert run(f"{command} {options}") == run(command) == 1
    assert asked == [fields, {}]
