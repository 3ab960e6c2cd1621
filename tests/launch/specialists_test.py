"""The launcher's table and its ways at equal cost; what it starts has its own tests."""

import json

import pytest

from jaxmoe.config import Experiment, to_dict
from launch import specialists as launcher
from tests.launch.fakes import finish


def write(run, accuracy, experts):
    run.mkdir()
    row = {
        "robust_accuracy": accuracy,
        "n": 40,
        "expert_accuracy": experts,
        "trust_accuracy": experts and sorted(experts, reverse=True),
        "random_route_accuracy": experts and sum(experts) / 2,
        "load_clean": experts and [0.25, 0.75],
        "expert_agreement": 0.3,
    }
    details = {"perfect_route": {"domain": {"value": 0.9}}} if experts else None
    (run / "results.json").write_text(json.dumps([row]))
    (run / "evaluation.json").write_text(json.dumps({"specialization": details}))
    finish(run, 90.0)


def test_the_table_has_means_over_seeds_and_the_single_network(tmp_path):
    for seed, accuracy in enumerate((0.5, 0.6)):
        write(launcher.folder(tmp_path, "single", seed), accuracy, None)
        write(launcher.folder(tmp_path, "from scratch", seed), accuracy + 0.2, [0.4, 0.2])
    lines = launcher.table(tmp_path, ["single", "from scratch"], [0, 1]).splitlines()
    assert lines[2] == "| single | 55.0 | – | – | – | – | – | – | – | 1.5 |"
    assert lines[3] == (
        "| from scratch | 75.0 | 30.0 | 40.0 | 40.0 | 20.0 | 90.0 | 25.0 | 30.0 | 1.5 |"
    )
    assert lines[-1] == "Means over seeds; n = 2 × 40 clips."


@pytest.mark.parametrize("way", launcher.WAYS)
def test_every_way_takes_as_many_epochs_and_names_fields_that_are_there(way):
    fields = launcher.WAYS[way]
    stages = ("shared-epochs", "specialize-epochs", "epochs")
    assert sum(int(fields.get(f"training.{stage}", 0)) for stage in stages) == launcher.EPOCHS
    known = to_dict(Experiment())
    for name in fields:
        section, field = name.split(".")
        assert field.replace("-", "_") in known[section]
