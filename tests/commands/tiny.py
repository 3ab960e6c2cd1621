"""A tiny experiment, and commands run on it in this process."""

import pathlib

from jaxmoe.attacks import AttackSettings
from jaxmoe.cli import main
from jaxmoe.config import (
    EvaluationConfig,
    Experiment,
    MixtureConfig,
    PooledRouterConfig,
    ResNetConfig,
    RunConfig,
    SyntheticActionsConfig,
    TrainingConfig,
)

TINY = Experiment(
    data=SyntheticActionsConfig(
        frames=4, height=16, train_clips=20, validation_clips=10, test_clips=10
    ),
    expert=ResNetConfig(width=4, stage_sizes=(1,)),
    router=PooledRouterConfig(),
    mixture=MixtureConfig(experts=2),
    attack=AttackSettings(steps=2),
    training=TrainingConfig(epochs=1, batch_size=10),
    evaluation=EvaluationConfig(attacks=("fgsm",), batch_size=10, checkpoint="latest"),
    run=RunConfig(directory="run", validate_every=1, log_every=1),
)
CONFIG = f"""
from jaxmoe.config import *
from jaxmoe.attacks import AttackSettings

def config():
    return {TINY!r}
"""


def run(arguments: str) -> int:
    """The exit code of a command."""
    return main(arguments.split())


def refused(arguments: str, folder: pathlib.Path, capsys) -> str:
    """The one line on standard error of a command that exits with 2 and writes nothing."""
    before = sorted(folder.rglob("*"))
    assert main(arguments.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert sorted(folder.rglob("*")) == before
    return line
